#pragma once

// Norms of one row in the dtype of the model (T is float or BFloat16), with the same bits on every instruction set.

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/isa.hpp"

namespace mxlm::cpu {

/// As NormArgs; `weight` and `bias` are of the row's (or group's) length, or null.
template <typename T>
struct NormRow {
  NormKind kind = NormKind::rms;
  const T* weight = nullptr;
  const T* bias = nullptr;
  float epsilon = 0;
  float weight_offset = 0;
  bool round_before_weight = true;
  Arithmetic arithmetic = Arithmetic::model_dtype;  // norm_row does not look at it
};

/// y = the norm of x, n values; y may be x. The variance of a LayerNorm is taken around the mean (two passes).
void norm_row(Isa isa, const NormRow<BFloat16>& norm, const BFloat16* x, int64_t n, BFloat16* y);
void norm_row(Isa isa, const NormRow<float>& norm, const float* x, int64_t n, float* y);

}  // namespace mxlm::cpu
