// Float32 multiply-adds on 256-bit registers, for processors without AVX-512. Bfloat16 values are widened once for many
// products: a chunk of A when it comes to the tile, a chunk of a panel for all rows of the tile.

#include <immintrin.h>

#include <array>
#include <cstring>
#include <type_traits>

#include "backend/cpu/gemm_kernels.hpp"
#include "backend/cpu/scratch.hpp"

#define MXLM_TARGET_AVX2 __attribute__((target("avx2,fma")))

namespace mxlm::cpu {
namespace {

constexpr int kStripRows = 6;  // 12 sums, 2 weights and an input of the 16 registers
constexpr int64_t kBlockRows = 192;
// Floats between rows of a widened chunk: not a multiple of 4 KiB, which would put rows into the same cache sets.
constexpr int64_t kWideStride = kMaxChunk + 16;

/// A chunk of R rows x one panel; `a` and `w` point at the first k, `direction` is 1 or -1.
template <int R>
MXLM_TARGET_AVX2 void strip(const float* a, const float* w, int64_t depth, int64_t direction, bool add, float* c,
                            int64_t c_stride) {
  __m256 low[R];
  __m256 high[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) low[r] = high[r] = _mm256_setzero_ps();
  for (int64_t t = 0; t < depth; ++t, a += direction, w += direction * kPanel) {
    const __m256 w_low = _mm256_loadu_ps(w);
    const __m256 w_high = _mm256_loadu_ps(w + 8);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m256 x = _mm256_broadcast_ss(a + r * kWideStride);
      low[r] = _mm256_fmadd_ps(x, w_low, low[r]);
      high[r] = _mm256_fmadd_ps(x, w_high, high[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    float* out = c + r * c_stride;
    if (add) {
      low[r] = _mm256_add_ps(_mm256_loadu_ps(out), low[r]);
      high[r] = _mm256_add_ps(_mm256_loadu_ps(out + 8), high[r]);
    }
    _mm256_storeu_ps(out, low[r]);
    _mm256_storeu_ps(out + 8, high[r]);
  }
}

/// `count` (a multiple of 32) values as float32.
MXLM_TARGET_AVX2 void widen(const BFloat16* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
  }
}
void widen(const float* from, int64_t count, float* to) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

/// `depth` (a multiple of 32) k of a panel as [k][16] float32.
MXLM_TARGET_AVX2 const float* widen_panel(const BFloat16* panel, int64_t depth, float* to) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  for (int64_t k = 0; k < depth; k += 2) {
    for (int64_t half = 0; half < kPanel; half += 8) {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + k * kPanel + 2 * half));
      _mm256_storeu_ps(to + k * kPanel + half, _mm256_castsi256_ps(_mm256_slli_epi32(both, 16)));
      _mm256_storeu_ps(to + (k + 1) * kPanel + half, _mm256_castsi256_ps(_mm256_and_si256(both, upper)));
    }
  }
  return to;
}
const float* widen_panel(const float* panel, int64_t /*depth*/, float* /*to*/) { return panel; }

template <typename A, typename W>
void tile(const TileArgs& args) {
  constexpr std::array kStrips{strip<1>, strip<2>, strip<3>, strip<4>, strip<5>, strip<6>};
  thread_local Scratch scratch;
  alignas(64) std::array<float, kMaxChunk * kPanel> panel;
  const Chunks chunks{args.depth(), chunk_length(args.w->k), args.order};
  const bool forward = args.order == Order::forward;
  for (int64_t block = 0; block < args.m; block += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, args.m - block);
    auto* a = reinterpret_cast<float*>(scratch.reserve(static_cast<size_t>(rows * kWideStride) * sizeof(float)));
    for (int64_t step = 0; step < chunks.count(); ++step) {
      const int64_t begin = chunks.begin(step);
      const int64_t depth = chunks.end(step) - begin;
      const int64_t first = forward ? 0 : depth - 1;
      for (int64_t r = 0; r < rows; ++r) widen(args.row<A>(block + r) + begin, depth, a + r * kWideStride);
      for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
        const float* w = widen_panel(args.panel<W>(p) + begin * kPanel, depth, panel.data());
        float* c = args.c + block * args.c_stride + (p - args.panel_begin) * kPanel;
        for (int64_t r = 0; r < rows; r += kStripRows) {
          const auto count = static_cast<size_t>(std::min<int64_t>(kStripRows, rows - r));
          kStrips[count - 1](a + r * kWideStride + first, w + first * kPanel, depth, forward ? 1 : -1, step > 0,
                             c + r * args.c_stride, args.c_stride);
        }
      }
    }
  }
}

/// Eight rows of eight words, to columns 16 words apart.
MXLM_TARGET_AVX2 void transpose8(const std::byte* rows, int64_t stride_bytes, float* out) {
  __m256 x[8];
  __m256 y[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) x[r] = _mm256_loadu_ps(reinterpret_cast<const float*>(rows + r * stride_bytes));
#pragma GCC unroll 4
  for (int r = 0; r < 8; r += 2) {
    y[r] = _mm256_unpacklo_ps(x[r], x[r + 1]);
    y[r + 1] = _mm256_unpackhi_ps(x[r], x[r + 1]);
  }
#pragma GCC unroll 2
  for (int r = 0; r < 8; r += 4) {  // x[r + c]: columns c and c + 4 of rows r..r+3
    x[r] = _mm256_shuffle_ps(y[r], y[r + 2], 0x44);
    x[r + 1] = _mm256_shuffle_ps(y[r], y[r + 2], 0xee);
    x[r + 2] = _mm256_shuffle_ps(y[r + 1], y[r + 3], 0x44);
    x[r + 3] = _mm256_shuffle_ps(y[r + 1], y[r + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(out + c * kPanel, _mm256_permute2f128_ps(x[c], x[c + 4], 0x20));
    _mm256_storeu_ps(out + (c + 4) * kPanel, _mm256_permute2f128_ps(x[c], x[c + 4], 0x31));
  }
}

}  // namespace

void transpose_words_avx2(const void* rows, int64_t stride_bytes, int64_t words, void* panel) {
  const auto* from = static_cast<const std::byte*>(rows);
  auto* to = static_cast<float*>(panel);  // whose values are moved only
  for (int64_t i = 0; i < words; i += 8) {
    transpose8(from + i * 4, stride_bytes, to + i * kPanel);
    transpose8(from + i * 4 + 8 * stride_bytes, stride_bytes, to + i * kPanel + 8);
  }
}

void gemm_tile_avx2(DType a_type, const TileArgs& args) {
  if (args.w->type == DType::f32) return tile<float, float>(args);
  if (a_type == DType::f32) return tile<float, BFloat16>(args);
  tile<BFloat16, BFloat16>(args);
}

}  // namespace mxlm::cpu
