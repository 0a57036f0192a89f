// Float32 multiply-adds on 256-bit registers, for processors without AVX-512. Bfloat16 values are widened in registers.

#include <cstring>
#include <type_traits>
#include <utility>

#include "backend/cpu/gemm_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define MXLM_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define MXLM_INLINE __attribute__((always_inline)) inline

namespace mxlm::cpu {
namespace {

constexpr int kRows = 4;  // 8 accumulators, 4 weights and 2 inputs of the 16 registers

/// The 16 outputs of one k.
struct Weights {
  __m256 low, high;
};

/// Both k of a pair, at `w` = panel + 16 * k.
MXLM_TARGET_AVX2 MXLM_INLINE std::pair<Weights, Weights> load_pair(const float* w) {
  return {{_mm256_loadu_ps(w), _mm256_loadu_ps(w + 8)}, {_mm256_loadu_ps(w + 16), _mm256_loadu_ps(w + 24)}};
}
MXLM_TARGET_AVX2 MXLM_INLINE std::pair<Weights, Weights> load_pair(const BFloat16* w) {
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 16));
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(low, upper)), _mm256_castsi256_ps(_mm256_and_si256(high, upper))}};
}

/// Both k of a pair of one row, each in all lanes.
struct Inputs {
  __m256 even, odd;
};
MXLM_TARGET_AVX2 MXLM_INLINE Inputs broadcast_pair(const float* x) {
  return {_mm256_broadcast_ss(x), _mm256_broadcast_ss(x + 1)};
}
MXLM_TARGET_AVX2 MXLM_INLINE Inputs broadcast_pair(const BFloat16* x) {
  int32_t word = 0;
  std::memcpy(&word, x, sizeof word);
  const __m256i both = _mm256_set1_epi32(word);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(both, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000U))))};
}

/// R rows x one panel over k in [begin, end), an even number of k.
template <int R, typename A, typename W>
MXLM_TARGET_AVX2 void strip(const TileArgs& args, int64_t row, const W* panel, int64_t begin, int64_t end, bool add,
                            float* c) {
  __m256 low[R];
  __m256 high[R];
  const A* a[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    low[r] = _mm256_setzero_ps();
    high[r] = _mm256_setzero_ps();
    a[r] = args.row<A>(row + r);
  }
  const bool forward = args.order == Order::forward;
  for (int64_t t = 0; t < (end - begin) / 2; ++t) {
    const int64_t k = forward ? begin + 2 * t : end - 2 - 2 * t;
    const auto [even, odd] = load_pair(panel + k * kPanel);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Inputs x = broadcast_pair(a[r] + k);
      low[r] = _mm256_fmadd_ps(x.even, even.low, low[r]);
      high[r] = _mm256_fmadd_ps(x.even, even.high, high[r]);
      low[r] = _mm256_fmadd_ps(x.odd, odd.low, low[r]);
      high[r] = _mm256_fmadd_ps(x.odd, odd.high, high[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* out = c + r * args.c_stride;
    if (add) {
      low[r] = _mm256_add_ps(_mm256_loadu_ps(out), low[r]);
      high[r] = _mm256_add_ps(_mm256_loadu_ps(out + 8), high[r]);
    }
    _mm256_storeu_ps(out, low[r]);
    _mm256_storeu_ps(out + 8, high[r]);
  }
}

template <typename A, typename W>
void tile(const TileArgs& args) {
  using Strip = void (*)(const TileArgs&, int64_t, const W*, int64_t, int64_t, bool, float*);
  constexpr Strip kStrips[kRows] = {strip<1, A, W>, strip<2, A, W>, strip<3, A, W>, strip<4, A, W>};
  const Chunks chunks{args.depth(), chunk_length(args.w->k), args.order};
  for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
    float* c = args.c + (p - args.panel_begin) * kPanel;
    for (int64_t step = 0; step < chunks.count(); ++step) {
      for (int64_t row = 0; row < args.m; row += kRows) {
        const int64_t rows = std::min<int64_t>(kRows, args.m - row);
        kStrips[rows - 1](args, row, args.panel<W>(p), chunks.begin(step), chunks.end(step), step > 0,
                          c + row * args.c_stride);
      }
    }
  }
}

}  // namespace

void gemm_tile_avx2(DType a_type, const TileArgs& args) {
  if (args.w->type == DType::f32) return tile<float, float>(args);
  if (a_type == DType::f32) return tile<float, BFloat16>(args);
  tile<BFloat16, BFloat16>(args);
}

}  // namespace mxlm::cpu

#endif
