// AMX kernels: 2 x 2 tiles of 16 x 16 sums, each fed by an A tile of 16 rows x 32 k and a B tile of 16 pairs of k x 16
// outputs, which is a kibibyte of a panel as it is packed.

// GCC 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "backend/cpu/gemm_kernels.hpp"

#define MXLM_TARGET_AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16")))

namespace mxlm::cpu {
namespace {

constexpr int64_t kTileRows = 16;

// A tdpbf16ps sums its 32 products before it adds them to the accumulator, so chunks may be longer than elsewhere.
constexpr int64_t amx_chunk_length(int64_t depth) {
  constexpr int64_t kLongest = 768;
  const int64_t count = (depth + kLongest - 1) / kLongest;
  return round_up((depth + count - 1) / count, kDepth);
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

/// Tiles 0..3 are the sums, 4 and 5 A (`upper` and `lower` rows), 6 and 7 B.
MXLM_TARGET_AMX void configure(int64_t upper, int64_t lower) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.bytes_per_row[t] = 64;
    const bool lower_tile = t == 2 || t == 3 || t == 5;
    config.rows[t] = static_cast<uint8_t>(t >= 6 ? kTileRows : lower_tile ? std::max<int64_t>(lower, 1) : upper);
  }
  // The intrinsics are opaque to the compiler, which must not move or drop the stores that they read.
  __asm__ volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

struct Block {
  const BFloat16* a;
  int64_t a_stride;   // elements
  const BFloat16* w;  // first of two panels
  int64_t panel_elements;
  int64_t steps, direction;  // of 32 k
  float* c;
  int64_t c_stride;
};

template <bool two_rows, bool two_panels>
MXLM_TARGET_AMX inline __attribute__((always_inline)) void multiply(const Block& b, float* c, int64_t c_stride) {
  const auto a_bytes = static_cast<long>(b.a_stride * 2);
  const BFloat16* a = b.a;
  const BFloat16* a_lower = b.a + kTileRows * b.a_stride;
  const BFloat16* w = b.w;
  const BFloat16* w_right = b.w + b.panel_elements;
  const int64_t a_step = kDepth * b.direction;
  const int64_t w_step = kDepth * kPanel * b.direction;
  _tile_zero(0);
  if constexpr (two_panels) _tile_zero(1);
  if constexpr (two_rows) _tile_zero(2);
  if constexpr (two_rows && two_panels) _tile_zero(3);
  for (int64_t t = b.steps; t > 0; --t) {
    _tile_loadd(6, w, 64);
    _tile_loadd(4, a, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (two_panels) {
      _tile_loadd(7, w_right, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (two_rows) {
      _tile_loadd(5, a_lower, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (two_panels) _tile_dpbf16ps(3, 5, 7);
    }
    a += a_step;
    a_lower += a_step;
    w += w_step;
    w_right += w_step;
  }
  const auto c_bytes = static_cast<long>(c_stride * 4);
  _tile_stored(0, c, c_bytes);
  if constexpr (two_panels) _tile_stored(1, c + kPanel, c_bytes);
  if constexpr (two_rows) _tile_stored(2, c + kTileRows * c_stride, c_bytes);
  if constexpr (two_rows && two_panels) _tile_stored(3, c + kTileRows * c_stride + kPanel, c_bytes);
}

template <bool two_rows, bool two_panels>
MXLM_TARGET_AMX void block(const Block& b, int64_t rows, bool add) {
  if (!add) return multiply<two_rows, two_panels>(b, b.c, b.c_stride);
  constexpr int64_t kWidth = two_panels ? 2 * kPanel : kPanel;
  alignas(64) float sums[2 * kTileRows * kWidth];
  multiply<two_rows, two_panels>(b, sums, kWidth);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < kWidth; j += kPanel) {
      float* out = b.c + i * b.c_stride + j;
      _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), _mm512_load_ps(sums + i * kWidth + j)));
    }
  }
}

/// All panels and chunks for the rows [begin, end), which are whole pairs of tiles or less than one pair.
MXLM_TARGET_AMX void rows_of_tiles(const TileArgs& args, int64_t begin, int64_t end) {
  const Chunks chunks{args.depth(), amx_chunk_length(args.depth()), args.order};
  const int64_t rows = std::min(end - begin, 2 * kTileRows);
  configure(std::min(rows, kTileRows), rows - kTileRows);
  for (int64_t step = 0; step < chunks.count(); ++step) {
    const int64_t first = chunks.begin(step);
    const int64_t last = chunks.end(step);
    const int64_t start = args.order == Order::forward ? first : last - kDepth;
    for (int64_t p = args.panel_begin; p < args.panel_end; p += 2) {
      const bool two_panels = p + 1 < args.panel_end;
      for (int64_t i = begin; i < end; i += 2 * kTileRows) {
        const Block b{args.row<BFloat16>(i) + start,
                      args.a_stride,
                      args.panel<BFloat16>(p) + start * kPanel,
                      args.w->panel_elements(),
                      (last - first) / kDepth,
                      args.order == Order::forward ? 1 : -1,
                      args.c + i * args.c_stride + (p - args.panel_begin) * kPanel,
                      args.c_stride};
        const bool two_rows = rows > kTileRows;
        if (two_rows) {
          two_panels ? block<true, true>(b, rows, step > 0) : block<true, false>(b, rows, step > 0);
        } else {
          two_panels ? block<false, true>(b, rows, step > 0) : block<false, false>(b, rows, step > 0);
        }
      }
    }
  }
  _tile_release();
}

}  // namespace

void gemm_tile_amx(const TileArgs& args) {
  const int64_t whole = args.m / (2 * kTileRows) * (2 * kTileRows);
  __asm__ volatile("" : : "r"(args.a), "r"(args.w->data) : "memory");
  if (whole > 0) rows_of_tiles(args, 0, whole);
  if (whole < args.m) rows_of_tiles(args, whole, args.m);
}

}  // namespace mxlm::cpu
