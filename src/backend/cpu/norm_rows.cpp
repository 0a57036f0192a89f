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

// --- portable

/// Which of 2 x 16 partial sums takes element j of 32: AVX-512 splits bfloat16s into even and odd places.
template <typename T>
constexpr int64_t lane_of(int64_t j) {
  return sizeof(T) == 2 ? j % 2 * kLanes + j / 2 : j;
}

/// Adds f(x[i]) into 2 x 16 partial sums; their sum.
template <typename T, typename F>
float sum_of(const T* x, int64_t n, const F& f) {
  std::array<float, 2 * kLanes> lanes{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    for (int64_t j = 0; j < 2 * kLanes; ++j) lanes[lane_of<T>(j)] += f(load(x[i + j]));
  }
  for (int64_t j = 0; i + j < n; ++j) lanes[lane_of<T>(j)] += f(load(x[i + j]));
  return sum_lanes(lanes.data());
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
Moments moments_portable(const NormRow<T>& norm, const T* x, int64_t n) {
  if (norm.kind == NormKind::rms) {
    const float squares = sum_of(x, n, [](float v) { return v * v; });
    return {0, 1.0F / std::sqrt(squares / static_cast<float>(n) + norm.epsilon)};
  }
  const float first = sum_of(x, n, [](float v) { return v; }) / static_cast<float>(n);
  const float sum = sum_of(x, n, [first](float v) { return v - first; });
  const float squares = sum_of(x, n, [first](float v) { return (v - first) * (v - first); });
  return layer_moments(first, sum, squares, n, norm.epsilon);
}

template <typename T>
bool rounds_twice(const NormRow<T>& norm) {
  return norm.kind == NormKind::rms && norm.round_before_weight && norm.weight != nullptr;
}

template <typename T>
void norm_portable(const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  const Moments m = moments_portable(norm, x, n);
  if (rounds_twice(norm)) {
    for (int64_t i = 0; i < n; ++i) store(rounded<T>(load(x[i]) * m.scale) * load(norm.weight[i]), y[i]);
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    float v = (norm.kind == NormKind::rms ? load(x[i]) : load(x[i]) - m.mean) * m.scale;
    if (norm.weight != nullptr) v *= load(norm.weight[i]) + norm.weight_offset;
    if (norm.bias != nullptr) v += load(norm.bias[i]);
    store(v, y[i]);
  }
}

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/norm.inl"
#include "backend/cpu/simd/each_target.hpp"

namespace {

template <typename T>
void dispatch(Isa isa, const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  assert(!rounds_twice(norm) || (norm.bias == nullptr && norm.weight_offset == 0));
  if (isa >= Isa::avx512) return avx512::normalise(norm, x, n, y);
  if (isa == Isa::avx2) return avx2::normalise(norm, x, n, y);
  norm_portable(norm, x, n, y);
}

}  // namespace

void norm_row(Isa isa, const NormRow<BFloat16>& norm, const BFloat16* x, int64_t n, BFloat16* y) {
  dispatch(isa, norm, x, n, y);
}
void norm_row(Isa isa, const NormRow<float>& norm, const float* x, int64_t n, float* y) {
  dispatch(isa, norm, x, n, y);
}

}  // namespace mxlm::cpu
