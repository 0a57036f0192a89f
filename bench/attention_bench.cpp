// Causal attention of the CPU backend: attention_bench [--benchmark_filter=...]. Arguments of a case: windows, tokens
// of a window, heads, key/value heads, head_dim, threads. `exps` counts the probabilities computed in a second.

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "backend/cpu/attention.hpp"

namespace mxlm::cpu {
namespace {

Tensor random_tensor(DType type, int64_t rows, int64_t cols, std::mt19937& random) {
  const auto bytes = static_cast<size_t>(rows * cols) * dtype_size(type);
  std::shared_ptr<void> memory(std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free);
  Tensor t(type, rows, cols, cols, std::move(memory));
  std::normal_distribution<float> normal;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      if (type == DType::bf16) {
        t.row<BFloat16>(r)[c] = to_bfloat16(normal(random));
      } else {
        t.row<float>(r)[c] = normal(random);
      }
    }
  }
  return t;
}

struct Features {
  int64_t window = 0;
  float softcap = 0;
  bool slopes = false, sinks = false;
};

void run(benchmark::State& state, DType type, const ProductSpec& spec, const Features& features = {}) {
  const int64_t windows = state.range(0);
  const int64_t tokens = state.range(1);
  AttentionArgs args;
  args.heads = static_cast<int>(state.range(2));
  args.kv_heads = static_cast<int>(state.range(3));
  args.head_dim = static_cast<int>(state.range(4));
  args.scale = 1 / std::sqrt(static_cast<float>(args.head_dim));
  args.sliding_window = features.window;
  args.softcap = features.softcap;
  const std::vector<float> slopes(features.slopes ? static_cast<size_t>(args.heads) : 0, 0.01F);
  const std::vector<float> sinks(features.sinks ? static_cast<size_t>(args.heads) : 0, 0.5F);
  args.slopes = slopes;
  args.sinks = sinks;
  args.qk = spec;
  args.pv = spec;
  ThreadPool pool(static_cast<int>(state.range(5)));
  std::mt19937 random(1);
  const int64_t rows = windows * tokens;
  const int64_t width = state.range(2) * state.range(4);
  const int64_t kv_width = state.range(3) * state.range(4);
  const Tensor q = random_tensor(type, rows, width, random);
  const Tensor k = random_tensor(type, rows, kv_width, random);
  const Tensor v = random_tensor(type, rows, kv_width, random);
  Tensor out = random_tensor(type, rows, width, random);
  std::vector<int64_t> offsets;
  for (int64_t w = 0; w <= windows; ++w) offsets.push_back(w * tokens);
  for (auto _ : state) {
    attention(detect_isa(), Order::forward, pool, q, k, v, offsets, {}, args, out);
    benchmark::DoNotOptimize(out.data());
  }
  double pairs = 0.5 * static_cast<double>(tokens * (tokens + 1));
  if (const int64_t hidden = tokens - features.window; features.window > 0 && hidden > 0) {
    pairs -= 0.5 * static_cast<double>(hidden * (hidden + 1));
  }
  pairs *= static_cast<double>(windows * args.heads);
  state.counters["exps"] =
      benchmark::Counter(pairs, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
  state.SetLabel(isa_name(detect_isa()));
}

void bf16(benchmark::State& state) { run(state, DType::bf16, {}); }
void bf16_window128(benchmark::State& state) { run(state, DType::bf16, {}, {.window = 128}); }
void bf16_window512(benchmark::State& state) { run(state, DType::bf16, {}, {.window = 512}); }
void bf16_alibi(benchmark::State& state) { run(state, DType::bf16, {}, {.slopes = true}); }
void bf16_softcap(benchmark::State& state) { run(state, DType::bf16, {}, {.softcap = 50}); }
void bf16_sinks(benchmark::State& state) { run(state, DType::bf16, {}, {.sinks = true}); }
void f32(benchmark::State& state) { run(state, DType::f32, {}); }
void bf16_mxfp8(benchmark::State& state) {
  constexpr mx::Format format{.element = mx::parse_element("mxfp8").value_or(mx::ElementFormat{})};
  static_assert(format.element.bits() == 8);
  run(state, DType::bf16, {format, format});
}

void cases(benchmark::internal::Benchmark* b) {
  for (const int threads : {1, 2}) {
    b->Args({4, 1024, 9, 3, 64, threads});    // SmolLM2-135M
    b->Args({1, 2048, 32, 8, 128, threads});  // Llama-3.1-8B
  }
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}

BENCHMARK(bf16)->Apply(cases);
BENCHMARK(f32)->Apply(cases);
BENCHMARK(bf16_window128)->Apply(cases);
BENCHMARK(bf16_window512)->Apply(cases);
BENCHMARK(bf16_alibi)->Apply(cases);
BENCHMARK(bf16_softcap)->Apply(cases);
BENCHMARK(bf16_sinks)->Apply(cases);
BENCHMARK(bf16_mxfp8)->Args({4, 1024, 9, 3, 64, 2})->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace mxlm::cpu

BENCHMARK_MAIN();
