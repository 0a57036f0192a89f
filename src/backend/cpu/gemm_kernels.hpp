#pragma once

// What gemm.cpp dispatches to, one set of kernels an instruction set. Not for users of gemm.hpp.

#include <algorithm>
#include <cstdint>

#include "backend/cpu/gemm.hpp"

namespace mxlm::cpu {

/// Terms of the sum over k that share one float32 accumulator before it is added to the total: long sums of one sign
/// would lose digits otherwise. A function of K alone, so that the bits of a row are too.
constexpr int64_t chunk_length(int64_t k) { return k <= 2048 ? 128 : 256; }
constexpr int64_t kMaxChunk = 256;

/// One call of gemm_tile, checked.
struct TileArgs {
  Order order;
  int64_t m;
  const void* a;
  int64_t a_stride;
  const PackedPanels* w;
  int64_t panel_begin, panel_end;
  float* c;
  int64_t c_stride;

  [[nodiscard]] int64_t depth() const { return round_up(w->k, kDepth); }
  template <typename T>
  [[nodiscard]] const T* row(int64_t i) const {
    return static_cast<const T*>(a) + i * a_stride;
  }
  template <typename T>
  [[nodiscard]] const T* panel(int64_t p) const {
    return static_cast<const T*>(w->data) + p * w->panel_elements();
  }
};

/// The chunk of step `step` in [0, chunks): [begin, end) of k.
struct Chunks {
  int64_t depth, length;
  Order order;
  [[nodiscard]] int64_t count() const { return (depth + length - 1) / length; }
  [[nodiscard]] int64_t begin(int64_t step) const {
    return (order == Order::forward ? step : count() - 1 - step) * length;
  }
  [[nodiscard]] int64_t end(int64_t step) const { return std::min(begin(step) + length, depth); }
};

/// Any product with float32 multiply-adds (AVX2 with FMA, AVX-512); bf16 x bf16 with vdpbf16ps; bf16 x bf16 with AMX
/// tiles.
void gemm_tile_avx2(DType a_type, const TileArgs& args);
void gemm_tile_avx512(DType a_type, const TileArgs& args);
void gemm_tile_avx512_bf16(const TileArgs& args);
void gemm_tile_amx(const TileArgs& args);

/// panel[16 * i + r] = word i of row r, for 16 rows of `words` (a multiple of 16) 4-byte words.
void transpose_words_avx2(const void* rows, int64_t stride_bytes, int64_t words, void* panel);
void transpose_words_avx512(const void* rows, int64_t stride_bytes, int64_t words, void* panel);

}  // namespace mxlm::cpu
