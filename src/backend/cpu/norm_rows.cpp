#include "backend/cpu/norm_rows.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "backend/cpu/row_values.hpp"
#include "backend/cpu/simd/math.hpp"

namespace mxlm::cpu {
namespace {

/// The sum of 2 x 16 partial sums, in one order for every instruction set.
float sum_lanes(const float* lanes) {
  std::array<float, kLanes> s;
  for (int64_t i = 0; i < kLanes; ++i) s[i] = lanes[i] + lanes[kLanes + i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) s[i] += s[i + width];
  }
  return s[0];
}

/// What is subtracted from a row, and what it is multiplied with then.
struct Moments {
  float mean = 0, scale = 1;
};

/// Mean and 1 / sqrt(variance + epsilon) from the sums around a first mean: of d = x - first and of d^2.
Moments layer_moments(float first, float sum, float squares, int64_t n, float epsilon) {
  const auto count = static_cast<float>(n);
  const float shift = sum / count;  // what rounding left of the mean
  const float variance = squares / count - shift * shift;
  return {first + shift, 1.0F / std::sqrt((variance > 0 ? variance : 0.0F * variance) + epsilon)};
}

template <typename T>
bool rounds_twice(const NormRow<T>& norm) {
  return norm.kind == NormKind::rms && norm.round_before_weight && norm.weight != nullptr;
}

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/norm.inl"
#include "backend/cpu/simd/each_target.hpp"

namespace {

template <typename T>
void dispatch(Isa isa, const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  assert(!rounds_twice(norm) || (norm.bias == nullptr && norm.weight_offset == 0));
  MXLM_DISPATCH(isa, normalise(norm, x, n, y));
}

}  // namespace

void norm_row(Isa isa, const NormRow<BFloat16>& norm, const BFloat16* x, int64_t n, BFloat16* y) {
  dispatch(isa, norm, x, n, y);
}
void norm_row(Isa isa, const NormRow<float>& norm, const float* x, int64_t n, float* y) {
  dispatch(isa, norm, x, n, y);
}

}  // namespace mxlm::cpu
