#pragma once

// The element-wise part of blocked attention: online softmax over one block of keys, and the running output.

#include <algorithm>
#include <cstdint>

#include "backend/cpu/isa.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

/// Lanes that the sum of a row's exponentials is kept in, on every instruction set.
constexpr int64_t kSumLanes = 16;

constexpr int64_t kAllKeys = int64_t{1} << 40;

/// One block of scores, `rows` queries by `keys` keys, and the running softmax of its rows. With x = scores *
/// log2_scale a probability is 2^(x - maximum), divided by the row's sum in the end.
struct SoftmaxBlock {
  int64_t rows = 0;
  int64_t keys = 0;               // columns of `p` to write: those that a row may not see become zeros
  int64_t visible = 0;            // row i sees the keys before visible + i
  int64_t limit = kAllKeys;       // and before this
  int64_t hidden = -kAllKeys;     // but not those before hidden + i
  float log2_scale = 1;           // scale * log2(e), > 0
  const float* scores = nullptr;  // [rows, score_stride]
  int64_t score_stride = 0;
  void* p = nullptr;  // [rows, p_stride] bf16 or f32: 2^(x - maximum)
  int64_t p_stride = 0;
  float* maximum = nullptr;  // [rows] in and out: the largest x so far, -inf at the start
  float* sums = nullptr;     // [rows, kSumLanes] in and out: sum of 2^(x - maximum) so far, 0 at the start
  float* factors = nullptr;  // [rows] out: what the sums and the output so far were, or are, to be multiplied with

  /// Row i sees the keys [begin(i), end(i)), maybe none.
  [[nodiscard]] int64_t end(int64_t i) const {
    return std::max<int64_t>(std::min(std::min(keys, limit), visible + i), 0);
  }
  [[nodiscard]] int64_t begin(int64_t i) const { return std::min(std::max<int64_t>(hidden + i, 0), end(i)); }
};

/// Reads the scores, raises the maxima, rescales the sums and adds to them, and writes P. P is rounded to bf16 when
/// `p_type` says so; the sums are of the values before that rounding.
void softmax_block(Isa isa, DType p_type, const SoftmaxBlock& block);

/// output[i, j] = output[i, j] * factors[i] + product[i, j]. `cols` is a multiple of 16.
void rescale_add(Isa isa, int64_t rows, int64_t cols, const float* factors, const float* product, float* output);

/// out[i, j] = output[i, j] / (sum of the lanes of row i, or 1 if that is 0), rounded to `type` (bf16 or f32); `stride`
/// in elements of it.
void normalise_rows(Isa isa, int64_t rows, int64_t cols, const float* sums, const float* output, int64_t output_stride,
                    DType type, void* out, int64_t stride);

}  // namespace mxlm::cpu
