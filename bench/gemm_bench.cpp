// Matrix products of the CPU backend at the shapes of SmolLM2-135M and Llama-3.1-8B, as GFLOP/s and as a share of what
// the arithmetic units reach ("of_peak", peaks measured in the same run). The sink rounds to bfloat16, as a linear
// does.

#include <benchmark/benchmark.h>

// GCC 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/gemm.hpp"
#include "backend/cpu/gemm_driver.hpp"
#include "backend/cpu/peaks.hpp"
#include "base/parallel.hpp"

namespace {

using namespace mxlm;
using namespace mxlm::cpu;

struct Free {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<void, Free>;
Memory allocate(int64_t bytes) { return Memory(::operator new(static_cast<size_t>(bytes), std::align_val_t{64})); }

/// Normal values of a type, a short period repeated: filling is not what is measured.
Memory fill(DType type, int64_t count) {
  std::mt19937 engine(1);
  std::normal_distribution<float> draw;
  std::vector<float> period(4099);
  for (float& x : period) x = draw(engine);
  Memory memory = allocate(count * static_cast<int64_t>(dtype_size(type)));
  for (int64_t i = 0; i < count; ++i) {
    const float x = period[static_cast<size_t>(i) % period.size()];
    if (type == DType::bf16) {
      static_cast<BFloat16*>(memory.get())[i] = to_bfloat16(x);
    } else {
      static_cast<float*>(memory.get())[i] = x;
    }
  }
  return memory;
}

void round_row(const float* from, int64_t count, BFloat16* to) {
  for (int64_t j = 0; j < count; ++j) to[j] = to_bfloat16(from[j]);
}

/// The same for numbers, so that the sink does not hide the product.
__attribute__((target("avx512f,avx512bw"))) void round_row_avx512(const float* from, int64_t count, BFloat16* to) {
  int64_t j = 0;
  for (; j + 16 <= count; j += 16) {
    const __m512i bits = _mm512_loadu_si512(from + j);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + j), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
  round_row(from + j, count - j, to + j);
}

struct Case {
  const char* model;
  int64_t m, n, k;
};

constexpr Case kCases[] = {
    {"smollm2", 4096, 576, 576},   {"smollm2", 4096, 192, 576},    {"smollm2", 4096, 1536, 576},
    {"smollm2", 4096, 576, 1536},  {"smollm2", 512, 576, 576},     {"smollm2", 512, 1536, 576},
    {"smollm2", 512, 576, 1536},   {"smollm2", 1024, 49152, 576},  {"llama-8b", 512, 4096, 4096},
    {"llama-8b", 512, 1024, 4096}, {"llama-8b", 512, 14336, 4096}, {"llama-8b", 512, 4096, 14336},
};

struct Route {
  const char* name;
  Isa isa;
  DType a, w;
  double Peaks::*peak;
};

constexpr Route kRoutes[] = {
    {"amx", Isa::amx_bf16, DType::bf16, DType::bf16, &Peaks::amx},
    {"vdpbf16ps", Isa::avx512_bf16, DType::bf16, DType::bf16, &Peaks::bf16_vector},
    {"fma_f32_f32", Isa::avx512, DType::f32, DType::f32, &Peaks::f32},
    {"fma_f32_bf16", Isa::avx512, DType::f32, DType::bf16, &Peaks::f32},
    {"fma_bf16_bf16", Isa::avx512, DType::bf16, DType::bf16, &Peaks::f32},
};

void product(benchmark::State& state, const Case& shape, const Route& route, ThreadPool& pool, double peak) {
  const int64_t depth = round_up(shape.k, kDepth);
  const Memory a = fill(route.a, shape.m * depth);
  const Memory w = fill(route.w, round_up(shape.n, kPanel) * depth);
  const Memory out = allocate(shape.m * shape.n * 2);
  const PackedPanels panels{route.w, shape.n, shape.k, w.get()};
  auto* c = static_cast<BFloat16*>(out.get());
  double best = std::numeric_limits<double>::infinity();
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    gemm(route.isa, Order::forward, pool, shape.m, route.a, a.get(), depth, panels,
         [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1, const float* tile, int64_t stride) {
           for (int64_t i = r0; i < r1; ++i) {
             BFloat16* to = c + i * shape.n + c0;
             const float* from = tile + (i - r0) * stride;
             route.isa >= Isa::avx512 ? round_row_avx512(from, c1 - c0, to) : round_row(from, c1 - c0, to);
           }
         });
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  // Of the best iteration, as the peaks are those of the best run: other work on the machine shows in the mean time.
  const double rate = 2e-9 * static_cast<double>(shape.m * shape.n * shape.k) / best;
  state.counters["best_GFLOP/s"] = rate;
  if (peak > 0) state.counters["of_peak"] = rate / peak;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::unique_ptr<ThreadPool>> pools;
  std::vector<Peaks> peaks;
  for (const int threads : {1, 2}) {
    pools.push_back(std::make_unique<ThreadPool>(threads));
    peaks.push_back(measure_peaks(*pools.back()));
    benchmark::AddCustomContext("peaks of " + std::to_string(threads) + " thread(s), GFLOP/s",
                                "f32 " + std::to_string(peaks.back().f32) + ", vdpbf16ps " +
                                    std::to_string(peaks.back().bf16_vector) + ", amx " +
                                    std::to_string(peaks.back().amx));
  }
  for (const Route& route : kRoutes) {
    if (route.isa > detect_isa()) continue;
    for (const Case& shape : kCases) {
      for (size_t i = 0; i < pools.size(); ++i) {
        const std::string name = std::string(route.name) + "/" + shape.model + "/m" + std::to_string(shape.m) + "/n" +
                                 std::to_string(shape.n) + "/k" + std::to_string(shape.k) + "/threads" +
                                 std::to_string(pools[i]->threads());
        ThreadPool& pool = *pools[i];
        const double peak = peaks[i].*(route.peak);
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=, &pool](benchmark::State& state) { product(state, shape, route, pool, peak); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
