#include "backend/cpu/gemm.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "backend/cpu/gemm_kernels.hpp"

namespace mxlm::cpu {
namespace {

float widen(float x) { return x; }
float widen(BFloat16 x) { return to_float(x); }

/// Element (k, output) of a panel.
template <typename W>
constexpr int64_t panel_index(int64_t k, int64_t output) {
  if constexpr (sizeof(W) == 2) {
    return (k / 2) * (2 * kPanel) + output * 2 + (k & 1);
  } else {
    return k * kPanel + output;
  }
}

template <typename A, typename W>
void portable_tile(const TileArgs& args) {
  const Chunks chunks{args.depth(), chunk_length(args.w->k), args.order};
  for (int64_t p = args.panel_begin; p < args.panel_end; ++p) {
    const W* panel = args.panel<W>(p);
    for (int64_t step = 0; step < chunks.count(); ++step) {
      const int64_t begin = chunks.begin(step);
      const int64_t end = chunks.end(step);
      for (int64_t i = 0; i < args.m; ++i) {
        const A* row = args.row<A>(i);
        std::array<float, kPanel> sum{};
        for (int64_t s = 0; s < end - begin; ++s) {
          const int64_t k = args.order == Order::forward ? begin + s : end - 1 - s;
          const float x = widen(row[k]);
          const W* w = panel + panel_index<W>(k, 0);
          for (int64_t j = 0; j < kPanel; ++j) sum[j] += x * widen(w[sizeof(W) == 2 ? 2 * j : j]);
        }
        float* out = args.c + i * args.c_stride + (p - args.panel_begin) * kPanel;
        for (int64_t j = 0; j < kPanel; ++j) out[j] = step == 0 ? sum[j] : out[j] + sum[j];
      }
    }
  }
}

template <typename T>
void pack_panel(Isa isa, const T* rows, int64_t row_count, int64_t stride, int64_t k, T* panel) {
  assert(row_count >= 0 && row_count <= kPanel);
  int64_t done = 0;
  if (isa >= Isa::avx2 && row_count == kPanel) {
    constexpr int64_t kBlock = 64 / sizeof(T);  // values of 16 words
    done = k / kBlock * kBlock;
    const auto transpose = isa >= Isa::avx512 ? transpose_words_avx512 : transpose_words_avx2;
    transpose(rows, stride * static_cast<int64_t>(sizeof(T)), done * static_cast<int64_t>(sizeof(T)) / 4, panel);
  }
  std::fill_n(panel + panel_index<T>(done, 0), kPanel * (round_up(k, kDepth) - done), T{});
  for (int64_t r = 0; r < row_count; ++r) {
    for (int64_t i = done; i < k; ++i) panel[panel_index<T>(i, r)] = rows[r * stride + i];
  }
}

template <typename T>
void pack_transposed(const T* v, int64_t keys, int64_t stride, int64_t d, T* panels) {
  const int64_t panel_elements = kPanel * round_up(keys, kDepth);
  std::fill_n(panels, panel_elements * (round_up(d, kPanel) / kPanel), T{});
  for (int64_t j = 0; j < d; j += kPanel) {
    T* panel = panels + j / kPanel * panel_elements;
    const int64_t width = std::min(kPanel, d - j);
    for (int64_t key = 0; key < keys; ++key) {
      const T* row = v + key * stride + j;
      T* out = panel + panel_index<T>(key, 0);
      for (int64_t i = 0; i < width; ++i) out[sizeof(T) == 2 ? 2 * i : i] = row[i];
    }
  }
}

}  // namespace

void gemm_tile(Isa isa, Order order, int64_t m, DType a_type, const void* a, int64_t a_stride, const PackedPanels& w,
               int64_t panel_begin, int64_t panel_end, float* c, int64_t c_stride) {
  assert(m >= 0 && panel_begin >= 0 && panel_begin <= panel_end && panel_end <= w.panels());
  assert(c_stride >= kPanel * (panel_end - panel_begin));
  assert(a_type == DType::f32 || (a_type == DType::bf16 && w.type == DType::bf16));
  assert(w.type == DType::bf16 || w.type == DType::f32);
  if (m == 0 || panel_begin == panel_end) return;
  if (w.k == 0) {
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * c_stride, kPanel * (panel_end - panel_begin), 0.0F);
    return;
  }
  const TileArgs args{order, m, a, a_stride, &w, panel_begin, panel_end, c, c_stride};
  const bool bf16 = a_type == DType::bf16;
  if (isa == Isa::amx_bf16 && bf16) return gemm_tile_amx(args);
  if (isa >= Isa::avx512_bf16 && bf16) return gemm_tile_avx512_bf16(args);
  if (isa >= Isa::avx512) return gemm_tile_avx512(a_type, args);
  if (isa == Isa::avx2) return gemm_tile_avx2(a_type, args);
  if (w.type == DType::f32) return portable_tile<float, float>(args);
  if (a_type == DType::f32) return portable_tile<float, BFloat16>(args);
  portable_tile<BFloat16, BFloat16>(args);
}

void pack_panel_bf16(Isa isa, const BFloat16* rows, int64_t row_count, int64_t stride, int64_t k, BFloat16* panel) {
  pack_panel(isa, rows, row_count, stride, k, panel);
}

void pack_panel_f32(Isa isa, const float* rows, int64_t row_count, int64_t stride, int64_t k, float* panel) {
  pack_panel(isa, rows, row_count, stride, k, panel);
}

void pack_transposed_bf16(const BFloat16* v, int64_t keys, int64_t stride, int64_t d, BFloat16* panels) {
  pack_transposed(v, keys, stride, d, panels);
}

void pack_transposed_f32(const float* v, int64_t keys, int64_t stride, int64_t d, float* panels) {
  pack_transposed(v, keys, stride, d, panels);
}

}  // namespace mxlm::cpu
