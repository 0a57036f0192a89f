#pragma once

// Matrix products of the CPU backend: C[M, N] = A[M, K] * W[N, K]^T with float32 accumulation.
//
// One packed layout serves every instruction set. A weight of bfloat16 values is cut into panels of 16 rows (outputs):
// panel p holds, for each pair of k, 16 x 2 values: [N/16][K/2][16][2], which is both what vdpbf16ps wants and an AMX B
// tile (16 pairs of k = 1 KiB). A weight of float32 values is [N/16][K][16]. N is padded to 16 and K to 32 with zeros.
// A is row-major, its rows padded with zeros to K32 = round_up(K, 32); bfloat16 or float32.
//
//   A bf16 x W bf16: AMX tiles, vdpbf16ps, or float32 multiply-adds on the widened values
//   A f32  x W bf16: float32 multiply-adds, W widened in registers
//   A f32  x W f32:  float32 multiply-adds
//
// The sum over k of an output runs in an order that depends only on K and the kind of product: never on M, N, the
// thread count or the position of a row, so a row gives the same bits whatever else is in the batch. `Order::reversed`
// runs it from the far end (to measure the noise of rounding).
//
// Accuracy, y64 being the sum in float64: |y - y64| <= 2^-22 * sum |a_k w_k| for operands of zero mean and 2^-20 for
// any (long sums are done in chunks), measured for K up to 14336. Besides, vdpbf16ps and AMX take subnormal operands
// for zero and flush subnormal results, whatever the processor's mode: an absolute error of up to 2^-126 * (K + sum
// over k of |the other operand|). The float32 routes keep subnormals. NaN and Inf propagate.

#include <cstddef>
#include <cstdint>

#include "backend/cpu/isa.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

enum class Order : uint8_t { forward, reversed };

constexpr int64_t kPanel = 16;
constexpr int64_t kDepth = 32;

/// A packed weight; `data` is 64-byte aligned.
struct PackedPanels {
  DType type = DType::bf16;  // bf16 or f32
  int64_t n = 0, k = 0;      // unpadded
  const void* data = nullptr;
  /// Elements of one panel of 16 outputs.
  [[nodiscard]] int64_t panel_elements() const { return kPanel * round_up(k, kDepth); }
  [[nodiscard]] int64_t panels() const { return round_up(n, kPanel) / kPanel; }
};

/// Computes C rows [0, m) x outputs [16 * panel_begin, min(16 * panel_end, n)) into float32 `c` (element (i, j) at
/// c[i * c_stride + j - 16 * panel_begin]); c_stride >= 16 * (panel_end - panel_begin), and the padding outputs of the
/// last panel are written too. `a` points at row 0 (element type `a_type`), rows `a_stride` elements apart.
/// One thread; meant for tiles that fit the caches.
void gemm_tile(Isa isa, Order order, int64_t m, DType a_type, const void* a, int64_t a_stride, const PackedPanels& w,
               int64_t panel_begin, int64_t panel_end, float* c, int64_t c_stride);

/// Packs `rows` (<= 16) consecutive rows of a row-major matrix into one panel; missing rows and k are zeros.
/// bf16 -> bf16 and f32 -> f32.
void pack_panel_bf16(Isa isa, const BFloat16* rows, int64_t row_count, int64_t stride, int64_t k, BFloat16* panel);
void pack_panel_f32(Isa isa, const float* rows, int64_t row_count, int64_t stride, int64_t k, float* panel);

/// Packs V for P * V: `rows` keys [keys, d] row-major become panels over d with the sum over keys:
/// [d/16][keys/2][16][2] (or [d/16][keys][16] for f32), keys padded to 32 with zeros.
void pack_transposed_bf16(const BFloat16* v, int64_t keys, int64_t stride, int64_t d, BFloat16* panels);
void pack_transposed_f32(const float* v, int64_t keys, int64_t stride, int64_t d, float* panels);

}  // namespace mxlm::cpu
