#pragma once

// What is left of the quantised operands of a product after it: their float32 scales, and the outliers of LLM.int8.

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/weights.hpp"

namespace mxlm::cpu {

/// product = (row scale x (values x W) + outliers x W) x column scale, in float32, each operation rounded.
class ProductScales {
 public:
  ProductScales(const Operand& x, const Panels& weight)
      : rows_(x.row_scales.empty() ? nullptr : x.row_scales.row<float>(0)), columns_(weight.output_scales()) {}

  /// True if sums are the product as they are (where there are no outliers, either).
  [[nodiscard]] bool none() const { return rows_ == nullptr && columns_ == nullptr; }

  /// Sums of row r, outputs [first, first + n), into products; `outliers` may be null, `out` may be `sums`.
  void apply(int64_t r, int64_t first, const float* sums, const float* outliers, int64_t n, float* out) const {
    const float row = rows_ == nullptr ? 1 : rows_[r];
    for (int64_t i = 0; i < n; ++i) out[i] = sums[i] * row;
    if (outliers != nullptr) {
      for (int64_t i = 0; i < n; ++i) out[i] += outliers[i];
    }
    if (columns_ != nullptr) {
      for (int64_t i = 0; i < n; ++i) out[i] *= columns_[first + i];
    }
  }

 private:
  const float* rows_;
  const float* columns_;
};

}  // namespace mxlm::cpu
