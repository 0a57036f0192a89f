// The operations of the CPU backend around the matrix products, at the shapes of SmolLM2-135M: bytes a second (read and
// written) beside memcpy's, and logits a second of the head. One thread, so that shares can be compared.

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "mx/format.hpp"

namespace {

using namespace mxlm;

constexpr int64_t kRows = 1024;
constexpr int64_t kHidden = 576;
constexpr int64_t kWide = 1536;
constexpr int64_t kVocabulary = 49152;

Backend& backend() {
  static const auto b = [] {
    CpuOptions options;
    options.threads = 1;
    return make_cpu_backend(options);
  }();
  return *b;
}

std::vector<BFloat16> random_values(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<BFloat16> values(static_cast<size_t>(count));
  for (BFloat16& x : values) x = to_bfloat16(normal(random));
  return values;
}

HostMatrix view(const std::vector<BFloat16>& values, int64_t rows) {
  const auto cols = static_cast<int64_t>(values.size()) / rows;
  return {DType::bf16, rows, cols, cols, reinterpret_cast<const std::byte*>(values.data())};
}

Tensor random_tensor(int64_t rows, int64_t cols) {
  const auto values = random_values(rows * cols);
  return backend().upload(view(values, rows), DType::bf16);
}

/// "" is no format.
OperandSpec spec_of(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto element = mx::parse_element(name);
  if (!element) std::abort();
  mx::Format format;
  format.element = *element;
  return format;
}

void count(benchmark::State& state, int64_t bytes, int64_t values) {
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["ns_per_value"] = benchmark::Counter(static_cast<double>(state.iterations() * values) * 1e-9,
                                                      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void copy(benchmark::State& state, int64_t bytes) {
  std::vector<char> from(static_cast<size_t>(bytes), 1);
  std::vector<char> to(from.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size());
    benchmark::ClobberMemory();
  }
  count(state, 2 * bytes, bytes);
}

void norm(benchmark::State& state, const std::string& format) {
  const Tensor x = random_tensor(kRows, kHidden);
  const Tensor weight = random_tensor(1, kHidden);
  for (auto _ : state) {
    std::vector<Operand> outs(1);
    outs[0].type.spec = spec_of(format);
    backend().norm(x, {.weight = &weight}, {}, outs);
    benchmark::DoNotOptimize(outs);
  }
  count(state, kRows * kHidden * 4, kRows * kHidden);
}

void gated(benchmark::State& state, const std::string& format) {
  const Tensor gate = random_tensor(kRows, kWide);
  const Tensor up = random_tensor(kRows, kWide);
  for (auto _ : state) {
    std::vector<Operand> outs(1);
    outs[0].type.spec = spec_of(format);
    backend().gated_activation(gate, up, {}, {}, outs);
    benchmark::DoNotOptimize(outs);
  }
  count(state, kRows * kWide * 6, kRows * kWide);
}

void layer_norm(benchmark::State& state) {
  const Tensor x = random_tensor(kRows, kHidden);
  const Tensor weight = random_tensor(1, kHidden);
  for (auto _ : state) {
    std::vector<Operand> outs(1);
    backend().norm(x, {.kind = NormKind::layer, .weight = &weight, .bias = &weight}, {}, outs);
    benchmark::DoNotOptimize(outs);
  }
  count(state, kRows * kHidden * 4, kRows * kHidden);
}

void activation(benchmark::State& state, Activation which) {
  const Tensor x = random_tensor(kRows, kWide);
  for (auto _ : state) {
    std::vector<Operand> outs(1);
    backend().activation(x, which, Arithmetic::model_dtype, {}, outs);
    benchmark::DoNotOptimize(outs);
  }
  count(state, kRows * kWide * 4, kRows * kWide);
}

void swiglu_oai(benchmark::State& state) {
  const Tensor x = random_tensor(kRows, 2 * kWide);
  for (auto _ : state) {
    std::vector<Operand> outs(1);
    backend().gated_activation(x, {}, {.activation = Activation::swiglu_oai, .interleaved = true, .limit = 7}, {},
                               outs);
    benchmark::DoNotOptimize(outs);
  }
  count(state, kRows * kWide * 6, kRows * kWide);
}

void add(benchmark::State& state) {
  const Tensor a = random_tensor(kRows, kHidden);
  const Tensor b = random_tensor(kRows, kHidden);
  Tensor out = random_tensor(kRows, kHidden);
  for (auto _ : state) backend().add(a, b, 1, out);
  count(state, kRows * kHidden * 6, kRows * kHidden);
}

void accumulate(benchmark::State& state) {
  const Tensor y = random_tensor(kRows, kHidden);
  Tensor sum = backend().empty(DType::f32, kRows, kHidden);
  backend().zero(sum);
  std::vector<int32_t> rows(kRows);
  for (size_t r = 0; r < rows.size(); ++r) rows[r] = static_cast<int32_t>(r);
  const std::vector<float> weights(kRows, 0.0F);
  for (auto _ : state) backend().accumulate(y, rows, weights, sum);
  count(state, kRows * kHidden * 10, kRows * kHidden);
}

void rotate(benchmark::State& state) {
  Tensor x = random_tensor(kRows, kHidden);
  // A turn by a right angle keeps the values as they are, however often it is repeated.
  const Tensor cos = backend().upload(view(std::vector<BFloat16>(kRows * 32, to_bfloat16(0)), kRows), DType::bf16);
  const Tensor sin = backend().upload(view(std::vector<BFloat16>(kRows * 32, to_bfloat16(1)), kRows), DType::bf16);
  std::vector<int32_t> rows(kRows);
  for (size_t r = 0; r < rows.size(); ++r) rows[r] = static_cast<int32_t>(r);
  for (auto _ : state) backend().rotate(x, 9, 64, {&cos, &sin, rows});
  count(state, kRows * kHidden * 4, kRows * kHidden);
}

/// A bfloat16 weight [kWide, kHidden] into panels (4 bytes an element moved: 2 read, 2 written).
void prepare(benchmark::State& state, const std::string& format) {
  const auto values = random_values(kWide * kHidden);
  for (auto _ : state) benchmark::DoNotOptimize(backend().prepare(view(values, kWide), spec_of(format)));
  count(state, kWide * kHidden * 4, kWide * kHidden);
}

void keep(benchmark::State& state, const std::string& format) {
  const auto values = random_values(kWide * kHidden);
  for (auto _ : state) benchmark::DoNotOptimize(backend().keep(view(values, kWide), spec_of(format)));
  count(state, kWide * kHidden * 3, kWide * kHidden);
}

void prepare_kept(benchmark::State& state, const std::string& format) {
  const auto values = random_values(kWide * kHidden);
  const auto kept = backend().keep(view(values, kWide), spec_of(format));
  for (auto _ : state) benchmark::DoNotOptimize(backend().prepare(kept));
  count(state, kWide * kHidden * 3, kWide * kHidden);
}

/// Baseline alone and with variants; `product` is the matrix product alone, without scores.
void score(benchmark::State& state, int inputs, bool product) {
  constexpr int64_t kScored = 512;
  static const auto weight = backend().prepare(view(random_values(kVocabulary * kHidden), kVocabulary), std::nullopt);
  std::vector<Operand> hidden;
  for (int i = 0; i < inputs; ++i) {
    Operand o;
    o.values = random_tensor(kScored, kHidden);
    hidden.push_back(std::move(o));
  }
  const std::vector<int32_t> targets(kScored, 17);
  std::vector<std::vector<TokenScore>> scores(hidden.size(), std::vector<TokenScore>(kScored));
  std::vector<HeadJob> all;
  for (size_t i = 0; i < hidden.size(); ++i)
    all.push_back({.hidden = &hidden[i], .weight = weight.get(), .scores = scores[i]});
  Tensor out = backend().empty(DType::bf16, kScored, kVocabulary);
  if (product) backend().linear(hidden[0], *weight, {}, out);  // so that its pages are there
  for (auto _ : state) {
    if (product) {
      backend().linear(hidden[0], *weight, {}, out);
    } else {
      backend().score(all, targets);
    }
  }
  const double logits = static_cast<double>(kScored) * static_cast<double>(kVocabulary) * inputs;
  state.counters["logits"] =
      benchmark::Counter(logits * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["flops"] =
      benchmark::Counter(2 * kHidden * logits * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void linear(benchmark::State& state, int64_t n, int64_t k) {
  const auto weight = backend().prepare(view(random_values(n * k), n), std::nullopt);
  Operand x;
  x.values = random_tensor(kRows, k);
  Tensor out = random_tensor(kRows, n);
  for (auto _ : state) backend().linear(x, *weight, {.residual = n == kHidden ? &out : nullptr}, out);
  state.counters["flops"] = benchmark::Counter(
      static_cast<double>(state.iterations() * 2 * kRows * n) * static_cast<double>(k), benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const int64_t bytes : {kRows * kHidden * 2, kRows * kWide * 3}) {
    benchmark::RegisterBenchmark(("memcpy/" + std::to_string(bytes)).c_str(), copy, bytes);
  }
  const std::vector<std::string> formats{"", "mxfp8_e4m3", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8"};
  const auto label = [](const char* name, const std::string& format) {
    return std::string(name) + "/" + (format.empty() ? "none" : format);
  };
  for (const std::string& format : formats) {
    benchmark::RegisterBenchmark(label("norm", format).c_str(), norm, format);
    benchmark::RegisterBenchmark(label("gated", format).c_str(), gated, format);
    benchmark::RegisterBenchmark(label("prepare", format).c_str(), prepare, format);
    if (format.empty()) continue;
    benchmark::RegisterBenchmark(label("keep", format).c_str(), keep, format);
    benchmark::RegisterBenchmark(label("prepare_kept", format).c_str(), prepare_kept, format);
  }
  benchmark::RegisterBenchmark("layer_norm", layer_norm);
  for (const auto& [name, which] :
       {std::pair{"gelu_new", Activation::gelu_new}, std::pair{"gelu_tanh", Activation::gelu_tanh},
        std::pair{"gelu_erf", Activation::gelu_erf}, std::pair{"silu", Activation::silu}}) {
    benchmark::RegisterBenchmark(("activation/" + std::string(name)).c_str(), activation, which);
  }
  benchmark::RegisterBenchmark("swiglu_oai", swiglu_oai);
  benchmark::RegisterBenchmark("add", add);
  benchmark::RegisterBenchmark("accumulate", accumulate);
  benchmark::RegisterBenchmark("rotate", rotate);
  benchmark::RegisterBenchmark("linear/1536x576", linear, kWide, kHidden);
  benchmark::RegisterBenchmark("linear/576x1536+residual", linear, kHidden, kWide);
  benchmark::RegisterBenchmark("head/product", score, 1, true)->Unit(benchmark::kMillisecond);
  for (const int inputs : {1, 2, 6}) {
    benchmark::RegisterBenchmark(("head/score/" + std::to_string(inputs)).c_str(), score, inputs, false)
        ->Unit(benchmark::kMillisecond);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
