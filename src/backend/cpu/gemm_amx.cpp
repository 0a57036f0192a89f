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
// The longest keeps A (2 tiles of rows) in the first-level cache.
constexpr int64_t kLongestChunk = 768;
constexpr int64_t amx_chunk_length(int64_t depth) {
  const int64_t count = (depth + kLongestChunk - 1) / kLongestChunk;
  return round_up((depth + count - 1) / count, kDepth);
}

// Sums of up to so many k go on from chunk to chunk; in longer ones every chunk is summed by itself.
constexpr int64_t kLongestChain = 2304;

// Panels from which on it pays to copy the rows of A to tile order: rows whose distance is a multiple of a big power of
// two would compete for a few sets of the cache.
constexpr int64_t kPackFrom = 6;

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
  __asm__ volatile("" : : "r"(&config) : "memory");  // as in chunk()
  _tile_loadconfig(&config);
}

/// What becomes of the sums of a chunk: they start C, go on from what C holds, or are added to it when they are done.
enum class Into : uint8_t { fresh, resume, merge };

struct Block {
  const BFloat16* a;
  int64_t a_stride, a_step, a_lower;  // elements from row to row, tile to tile of k, upper to lower tile
  const BFloat16* w;                  // first of two panels
  int64_t w_step, panel_elements;
  int64_t steps;  // of 32 k
  float* c;
  int64_t c_stride;
};

template <bool two_rows, bool two_panels>
MXLM_TARGET_AMX inline __attribute__((always_inline)) void multiply(const Block& b, bool resume, float* c,
                                                                    int64_t c_stride) {
  const auto a_bytes = static_cast<long>(b.a_stride * 2);
  const BFloat16* a = b.a;
  const BFloat16* a_lower = b.a + b.a_lower;
  const BFloat16* w = b.w;
  const BFloat16* w_right = b.w + b.panel_elements;
  const auto c_bytes = static_cast<long>(c_stride * 4);
  if (resume) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (two_panels) _tile_loadd(1, c + kPanel, c_bytes);
    if constexpr (two_rows) _tile_loadd(2, c + kTileRows * c_stride, c_bytes);
    if constexpr (two_rows && two_panels) _tile_loadd(3, c + kTileRows * c_stride + kPanel, c_bytes);
  } else {
    _tile_zero(0);
    if constexpr (two_panels) _tile_zero(1);
    if constexpr (two_rows) _tile_zero(2);
    if constexpr (two_rows && two_panels) _tile_zero(3);
  }
  for (int64_t t = b.steps; t > 0; --t) {
    // The weight is read once for many steps of A: the hint keeps it from driving A out of the first-level cache.
    _tile_stream_loadd(6, w, 64);
    _tile_loadd(4, a, a_bytes);
    if constexpr (two_rows) _tile_loadd(5, a_lower, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (two_rows) _tile_dpbf16ps(2, 5, 6);
    if constexpr (two_panels) {
      _tile_stream_loadd(7, w_right, 64);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (two_rows) _tile_dpbf16ps(3, 5, 7);
    }
    a += b.a_step;
    a_lower += b.a_step;
    w += b.w_step;
    w_right += b.w_step;
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (two_panels) _tile_stored(1, c + kPanel, c_bytes);
  if constexpr (two_rows) _tile_stored(2, c + kTileRows * c_stride, c_bytes);
  if constexpr (two_rows && two_panels) _tile_stored(3, c + kTileRows * c_stride + kPanel, c_bytes);
}

template <bool two_rows, bool two_panels>
MXLM_TARGET_AMX void block(const Block& b, int64_t rows, Into into) {
  if (into != Into::merge) return multiply<two_rows, two_panels>(b, into == Into::resume, b.c, b.c_stride);
  constexpr int64_t kWidth = two_panels ? 2 * kPanel : kPanel;
  alignas(64) float sums[2 * kTileRows * kWidth];
  multiply<two_rows, two_panels>(b, false, sums, kWidth);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < kWidth; j += kPanel) {
      float* out = b.c + i * b.c_stride + j;
      _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), _mm512_load_ps(sums + i * kWidth + j)));
    }
  }
}

/// Copies `rows` rows of `depth` k to tile order: [2][depth / 32][16][32].
MXLM_TARGET_AMX void pack_rows(const BFloat16* a, int64_t a_stride, int64_t rows, int64_t depth, BFloat16* packed) {
  for (int64_t i = 0; i < rows; ++i) {
    BFloat16* to = packed + i / kTileRows * (kTileRows * depth) + i % kTileRows * kDepth;
    for (int64_t k = 0; k < depth; k += kDepth) {
      _mm512_store_si512(to + k * kTileRows, _mm512_loadu_si512(a + i * a_stride + k));
    }
  }
}

/// One chunk [first, last) of k for up to 32 rows from `i` on and all panels.
MXLM_TARGET_AMX void chunk(const TileArgs& args, int64_t i, int64_t rows, int64_t first, int64_t last, Into into,
                           BFloat16* packed) {
  const int64_t depth = last - first;
  const bool forward = args.order == Order::forward;
  Block b{};
  b.steps = depth / kDepth;
  b.panel_elements = args.w->panel_elements();
  b.w_step = (forward ? 1 : -1) * kDepth * kPanel;
  b.c_stride = args.c_stride;
  if (args.panel_end - args.panel_begin >= kPackFrom) {
    pack_rows(args.row<BFloat16>(i) + first, args.a_stride, rows, depth, packed);
    b.a_stride = kDepth;
    b.a_lower = kTileRows * depth;
    b.a_step = (forward ? 1 : -1) * kDepth * kTileRows;
    b.a = packed + (forward ? 0 : (depth - kDepth) * kTileRows);
  } else {
    b.a_stride = args.a_stride;
    b.a_lower = kTileRows * args.a_stride;
    b.a_step = (forward ? 1 : -1) * kDepth;
    b.a = args.row<BFloat16>(i) + (forward ? first : last - kDepth);
  }
  // The intrinsics are opaque to the compiler, which must not move or drop the stores that they read.
  __asm__ volatile("" : : "r"(b.a), "r"(args.w->data) : "memory");
  for (int64_t p = args.panel_begin; p < args.panel_end; p += 2) {
    const bool two_panels = p + 1 < args.panel_end;
    b.w = args.panel<BFloat16>(p) + (forward ? first : last - kDepth) * kPanel;
    b.c = args.c + i * args.c_stride + (p - args.panel_begin) * kPanel;
    if (rows > kTileRows) {
      two_panels ? block<true, true>(b, rows, into) : block<true, false>(b, rows, into);
    } else {
      two_panels ? block<false, true>(b, rows, into) : block<false, false>(b, rows, into);
    }
  }
}

}  // namespace

MXLM_TARGET_AMX void gemm_tile_amx(const TileArgs& args) {
  alignas(64) BFloat16 packed[2 * kTileRows * kLongestChunk];
  const Chunks chunks{args.depth(), amx_chunk_length(args.depth()), args.order};
  const int64_t whole = args.m / (2 * kTileRows) * (2 * kTileRows);
  const int64_t rest = args.m - whole;
  const auto into = [&](int64_t step) {
    return step == 0 ? Into::fresh : chunks.depth <= kLongestChain ? Into::resume : Into::merge;
  };
  if (whole > 0) {
    configure(kTileRows, kTileRows);
    for (int64_t step = 0; step < chunks.count(); ++step) {
      for (int64_t i = 0; i < whole; i += 2 * kTileRows) {
        chunk(args, i, 2 * kTileRows, chunks.begin(step), chunks.end(step), into(step), packed);
      }
    }
  }
  if (rest > 0) {
    configure(std::min(rest, kTileRows), rest - kTileRows);
    for (int64_t step = 0; step < chunks.count(); ++step) {
      chunk(args, whole, rest, chunks.begin(step), chunks.end(step), into(step), packed);
    }
  }
  _tile_release();
}

}  // namespace mxlm::cpu
