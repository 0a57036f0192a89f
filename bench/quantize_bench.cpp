// Quantise-and-decode: in cache (cycles a block matter: it runs on every activation before a matrix product), and on
// arrays beyond the last-level cache beside memcpy, both in bytes read plus written.

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/quantize.hpp"

namespace {

using mxlm::BFloat16;
namespace cpu = mxlm::cpu;
namespace mx = mxlm::mx;

constexpr int64_t kInCache = 4096;

/// Bytes of one array beyond the cache: MXLM_BENCH_BYTES, else 2 GiB (four times a last-level cache of 512 MiB).
size_t large_bytes() {
  const char* text = std::getenv("MXLM_BENCH_BYTES");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : size_t{2} << 30;
}

struct Unmap {
  size_t bytes;
  void operator()(void* p) const { munmap(p, bytes); }
};
using Pages = std::unique_ptr<void, Unmap>;

Pages map_pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  madvise(p, bytes, MADV_HUGEPAGE);
  return {p, Unmap{bytes}};
}

/// Two arrays, shared by all benchmarks of this program; the first one holds normal values.
struct Arrays {
  size_t bytes = large_bytes();
  Pages in = map_pages(bytes), out = map_pages(bytes);
  Arrays() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> part(1 << 20);
    for (float& x : part) x = normal(random);
    const size_t step = part.size() * sizeof(float);
    for (size_t at = 0; at < bytes; at += step) {
      std::memcpy(static_cast<char*>(in.get()) + at, part.data(), std::min(step, bytes - at));
    }
    std::memset(out.get(), 1, bytes);
  }
  static Arrays& get() {
    static Arrays arrays;
    return arrays;
  }
};

void count_bytes(benchmark::State& state, size_t in_plus_out) {
  state.SetBytesProcessed(static_cast<int64_t>(in_plus_out) * state.iterations());
}

void large_memcpy(benchmark::State& state) {
  Arrays& a = Arrays::get();
  for (auto _ : state) {
    std::memcpy(a.out.get(), a.in.get(), a.bytes);
    benchmark::ClobberMemory();
  }
  count_bytes(state, 2 * a.bytes);
}

void large_quantize(benchmark::State& state, const mx::Format& format) {
  Arrays& a = Arrays::get();
  const cpu::Isa isa = cpu::detect_isa();
  const auto n = static_cast<int64_t>(a.bytes / sizeof(float));
  for (auto _ : state) {
    cpu::quantize_decode_stream(isa, format, static_cast<const float*>(a.in.get()), n,
                                static_cast<float*>(a.out.get()));
    benchmark::ClobberMemory();
  }
  count_bytes(state, 2 * a.bytes);
}

template <typename In, typename Out>
void in_cache(benchmark::State& state, const mx::Format& format) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<In> in(kInCache);
  std::vector<Out> out(kInCache);
  for (In& x : in) {
    if constexpr (std::is_same_v<In, float>) {
      x = normal(random);
    } else {
      x = mxlm::to_bfloat16(normal(random));
    }
  }
  const cpu::Isa isa = cpu::detect_isa();
  for (auto _ : state) {
    cpu::quantize_decode_row(isa, format, in.data(), kInCache, out.data());
    benchmark::ClobberMemory();
  }
  count_bytes(state, kInCache * (sizeof(In) + sizeof(Out)));
  state.counters["ns_per_32"] = benchmark::Counter(static_cast<double>(state.iterations()) * kInCache / 32,
                                                   benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

template <typename Out>
void decode_in_cache(benchmark::State& state, const mx::Format& format) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> in(kInCache);
  for (float& x : in) x = normal(random);
  std::vector<uint8_t> codes(static_cast<size_t>(cpu::code_bytes(format, kInCache)));
  std::vector<uint8_t> scales(static_cast<size_t>(cpu::scale_bytes(format, kInCache)));
  std::vector<Out> out(kInCache);
  const cpu::Isa isa = cpu::detect_isa();
  cpu::encode_row(isa, format, in.data(), kInCache, codes.data(), scales.data());
  for (auto _ : state) {
    cpu::decode_row(isa, format, codes.data(), scales.data(), kInCache, out.data());
    benchmark::ClobberMemory();
  }
  state.counters["ns_per_32"] = benchmark::Counter(static_cast<double>(state.iterations()) * kInCache / 32,
                                                   benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void encode_in_cache(benchmark::State& state, const mx::Format& format) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<BFloat16> in(kInCache);
  for (auto& x : in) x = mxlm::to_bfloat16(normal(random));
  std::vector<uint8_t> codes(static_cast<size_t>(cpu::code_bytes(format, kInCache)));
  std::vector<uint8_t> scales(static_cast<size_t>(cpu::scale_bytes(format, kInCache)));
  const cpu::Isa isa = cpu::detect_isa();
  for (auto _ : state) {
    cpu::encode_row(isa, format, in.data(), kInCache, codes.data(), scales.data());
    benchmark::ClobberMemory();
  }
  state.counters["ns_per_32"] = benchmark::Counter(static_cast<double>(state.iterations()) * kInCache / 32,
                                                   benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& e : mx::kElements) {
    const std::string name(e.name);
    const mx::Format format{e.format};
    benchmark::RegisterBenchmark(("cache/f32_to_f32/" + name).c_str(), in_cache<float, float>, format);
    benchmark::RegisterBenchmark(("cache/f32_to_bf16/" + name).c_str(), in_cache<float, BFloat16>, format);
    benchmark::RegisterBenchmark(("cache/bf16_to_bf16/" + name).c_str(), in_cache<BFloat16, BFloat16>, format);
    benchmark::RegisterBenchmark(("cache/decode_bf16/" + name).c_str(), decode_in_cache<BFloat16>, format);
    benchmark::RegisterBenchmark(("cache/encode/" + name).c_str(), encode_in_cache, format);
  }
  for (const auto& rule : mx::kScaleRules) {
    mx::Format format{mx::kElements[0].format};
    format.rule = rule.rule;
    benchmark::RegisterBenchmark(("cache/bf16_to_bf16/rule_" + std::string(rule.name)).c_str(),
                                 in_cache<BFloat16, BFloat16>, format);
  }
  for (const auto& rounding : mx::kRoundings) {
    mx::Format format{mx::kElements[0].format};
    format.rounding = rounding.rounding;
    benchmark::RegisterBenchmark(("cache/bf16_to_bf16/round_" + std::string(rounding.name)).c_str(),
                                 in_cache<BFloat16, BFloat16>, format);
  }
  benchmark::RegisterBenchmark("large/memcpy", large_memcpy)->Iterations(1)->Repetitions(5);
  for (const auto& e : mx::kElements) {
    benchmark::RegisterBenchmark(("large/f32_to_f32/" + std::string(e.name)).c_str(), large_quantize,
                                 mx::Format{e.format})
        ->Iterations(1)
        ->Repetitions(5);
  }
  benchmark::RegisterBenchmark("large/memcpy_again", large_memcpy)->Iterations(1)->Repetitions(5);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
