#include "backend/cpu/peaks.hpp"

// GCC 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "backend/cpu/gemm.hpp"

#define MXLM_TARGET_F32 __attribute__((target("avx512f,fma")))
#define MXLM_TARGET_BF16 __attribute__((target("avx512f,avx512bf16,fma")))
#define MXLM_TARGET_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace mxlm::cpu {
namespace {

constexpr int kChains = 24;  // independent sums: enough to hide the latency of two units
constexpr auto kMeasure = std::chrono::milliseconds(330);

/// Runs `rounds` rounds of kChains multiply-adds; the result keeps the compiler from dropping them.
MXLM_TARGET_F32 float multiply_add(int64_t rounds) {
  __m512 sum[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));  // equal ones would be merged
  __m512 x = _mm512_set1_ps(0.5F);
  __m512 y = _mm512_set1_ps(0.25F);
  for (int64_t t = 0; t < rounds; ++t) {
    __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_fmadd_ps(x, y, sum[i]);
  }
  __m512 total = _mm512_setzero_ps();
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) total = _mm512_add_ps(total, sum[i]);
  return _mm512_cvtss_f32(total);
}

MXLM_TARGET_BF16 float dot_pairs(int64_t rounds) {
  __m512 sum[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));  // equal ones would be merged
  __m512i x = _mm512_set1_epi32(0x3f003f00);                                         // pairs of 0.5
  __m512i y = _mm512_set1_epi32(0x3e803e80);
  for (int64_t t = 0; t < rounds; ++t) {
    __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)x, (__m512bh)y);
  }
  __m512 total = _mm512_setzero_ps();
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) total = _mm512_add_ps(total, sum[i]);
  return _mm512_cvtss_f32(total);
}

constexpr int64_t kTileSteps = 8;  // of 32 k, so that both operands (32 KiB) stay in the first-level cache

struct alignas(64) TileOperands {
  BFloat16 a[kTileSteps][2][16 * 32];
  BFloat16 w[kTileSteps][2][16 * 32];

  // Values that differ: multipliers that see the same bits again and again draw less power and clock higher than any
  // real product lets them.
  TileOperands() {
    std::minstd_rand engine(1);
    std::uniform_real_distribution<float> draw(-1, 1);
    std::generate_n(&a[0][0][0], sizeof a / sizeof(BFloat16), [&] { return to_bfloat16(draw(engine)); });
    std::generate_n(&w[0][0][0], sizeof w / sizeof(BFloat16), [&] { return to_bfloat16(draw(engine)); });
  }
};

/// `rounds` passes over 32 x 32 outputs and 32 * kTileSteps k.
MXLM_TARGET_AMX float tiles(int64_t rounds) {
  static const TileOperands operands;
  const auto& [a, w] = operands;
  alignas(64) float c[16 * 16];
  alignas(64) uint8_t config[64] = {1};  // palette 1; all tiles 16 rows of 64 bytes
  for (int t = 0; t < 8; ++t) {
    config[16 + 2 * t] = 64;
    config[48 + t] = 16;
  }
  __asm__ volatile("" : : "r"(config), "r"(&operands) : "memory");
  _tile_loadconfig(config);
  for (int64_t round = 0; round < rounds; ++round) {
    for (int64_t t = 0; t < kTileSteps; ++t) {
      _tile_loadd(4, a[t][0], 64);
      _tile_loadd(6, w[t][0], 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, w[t][1], 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a[t][1], 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, 64);
  _tile_release();
  return c[0];
}

/// Best GFLOP/s of the pool when every thread calls `work(rounds)`, a round being `flops_per_round` operations.
double best_rate(ThreadPool& pool, float (*work)(int64_t), int64_t rounds, double flops_per_round) {
  using Clock = std::chrono::steady_clock;
  std::vector<float> results(static_cast<size_t>(pool.threads()));
  double best = 0;
  // Long enough for a machine that was idle to reach its clock, and a shared one to have a quiet moment.
  for (const auto until = Clock::now() + kMeasure; Clock::now() < until;) {
    const auto start = Clock::now();
    pool.run(pool.threads(), [&](int64_t task, int /*worker*/) { results[static_cast<size_t>(task)] = work(rounds); });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(rounds) * flops_per_round * pool.threads() / seconds * 1e-9);
  }
  return best;
}

}  // namespace

Peaks measure_peaks(ThreadPool& pool) {
  const Isa isa = detect_isa();
  Peaks peaks;
  if (isa >= Isa::avx512) peaks.f32 = best_rate(pool, multiply_add, 300'000, 2.0 * 16 * kChains);
  if (isa >= Isa::avx512_bf16) peaks.bf16_vector = best_rate(pool, dot_pairs, 100'000, 4.0 * 16 * kChains);
  if (isa >= Isa::amx_bf16) peaks.amx = best_rate(pool, tiles, 3'000, 2.0 * 32 * 32 * 32 * kTileSteps);
  return peaks;
}

}  // namespace mxlm::cpu
