#include "backend/cpu/norm_rows.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "backend/cpu/row_values.hpp"

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

float inverse_rms(const float* lanes, int64_t n, float epsilon) {
  return 1.0F / std::sqrt(sum_lanes(lanes) / static_cast<float>(n) + epsilon);
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

// --- AVX-512. Every loop runs over 16 or 32 values, the last ones under a mask.

MXLM_TARGET_AVX512 float inverse_rms_avx512(__m512 first, __m512 second, int64_t n, float epsilon) {
  alignas(64) std::array<float, 2 * kLanes> lanes;
  _mm512_store_ps(lanes.data(), first);
  _mm512_store_ps(lanes.data() + kLanes, second);
  return inverse_rms(lanes.data(), n, epsilon);
}

MXLM_TARGET_AVX512 void norm_avx512(const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  __m512 sum = _mm512_setzero_ps();
  __m512 other = _mm512_setzero_ps();  // the one that the vector before went to
  int64_t i = 0;
  for (; i < n; i += kLanes) {
    const __m512 a = _mm512_maskz_loadu_ps(lanes_left(n - i), x + i);
    const __m512 grown = _mm512_add_ps(sum, _mm512_mul_ps(a, a));  // not fused: the portable form's bits
    sum = other;
    other = grown;
  }
  const bool swapped = i / kLanes % 2 != 0;
  const __m512 scale = _mm512_set1_ps(inverse_rms_avx512(swapped ? other : sum, swapped ? sum : other, n, epsilon));
  for (i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
  }
}

MXLM_TARGET_AVX512 void norm_avx512(const BFloat16* x, const BFloat16* weight, float epsilon, int64_t n, BFloat16* y) {
  __m512 even = _mm512_setzero_ps();
  __m512 odd = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const Bf16Pair v = load_bf16_pair(lanes_left_32(n - i), x + i);
    even = _mm512_fmadd_ps(v.even, v.even, even);  // the square is exact: fused or not is the same
    odd = _mm512_fmadd_ps(v.odd, v.odd, odd);
  }
  const __m512 scale = _mm512_set1_ps(inverse_rms_avx512(even, odd, n, epsilon));
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __mmask32 mask = lanes_left_32(n - i);
    const Bf16Pair v = load_bf16_pair(mask, x + i);
    const Bf16Pair w = load_bf16_pair(mask, weight + i);
    const __m512i first = round_bf16_bits(_mm512_mul_ps(round_bf16_clean(_mm512_mul_ps(v.even, scale)), w.even));
    const __m512i second = round_bf16_bits(_mm512_mul_ps(round_bf16_clean(_mm512_mul_ps(v.odd, scale)), w.odd));
    _mm512_mask_storeu_epi16(y + i, mask, join_bf16(first, second));
  }
}

MXLM_TARGET_AVX512 inline float lanes_sum(__m512 first, __m512 second) {
  alignas(64) std::array<float, 2 * kLanes> lanes;
  _mm512_store_ps(lanes.data(), first);
  _mm512_store_ps(lanes.data() + kLanes, second);
  return sum_lanes(lanes.data());
}

/// 32 values of a row as two vectors, in the order of lane_of.
MXLM_TARGET_AVX512 inline Bf16Pair load_pair(const BFloat16* x, int64_t left) {
  return load_bf16_pair(lanes_left_32(left), x);
}
MXLM_TARGET_AVX512 inline Bf16Pair load_pair(const float* x, int64_t left) {
  return {_mm512_maskz_loadu_ps(lanes_left(left), x),
          _mm512_maskz_loadu_ps(lanes_left(std::max<int64_t>(left - kLanes, 0)), x + kLanes)};
}
MXLM_TARGET_AVX512 inline void store_pair(BFloat16* y, int64_t left, const Bf16Pair& v) {
  _mm512_mask_storeu_epi16(y, lanes_left_32(left), join_bf16(round_bf16_bits(v.even), round_bf16_bits(v.odd)));
}
MXLM_TARGET_AVX512 inline void store_pair(float* y, int64_t left, const Bf16Pair& v) {
  _mm512_mask_storeu_ps(y, lanes_left(left), v.even);
  _mm512_mask_storeu_ps(y + kLanes, lanes_left(std::max<int64_t>(left - kLanes, 0)), v.odd);
}

/// The lanes of a vector pair that hold values.
struct PairMask {
  __mmask16 even, odd;
};
template <typename T>
MXLM_TARGET_AVX512 inline PairMask pair_mask(int64_t left) {
  if constexpr (sizeof(T) == 2) return {lanes_left((left + 1) / 2), lanes_left(left / 2)};
  return {lanes_left(left), lanes_left(std::max<int64_t>(left - kLanes, 0))};
}

template <typename T>
MXLM_TARGET_AVX512 Moments moments_avx512(const NormRow<T>& norm, const T* x, int64_t n) {
  __m512 even = _mm512_setzero_ps();
  __m512 odd = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const Bf16Pair v = load_pair(x + i, n - i);
    const bool squares = norm.kind == NormKind::rms;
    even = _mm512_add_ps(even, squares ? _mm512_mul_ps(v.even, v.even) : v.even);
    odd = _mm512_add_ps(odd, squares ? _mm512_mul_ps(v.odd, v.odd) : v.odd);
  }
  const float sum = lanes_sum(even, odd);
  if (norm.kind == NormKind::rms) return {0, 1.0F / std::sqrt(sum / static_cast<float>(n) + norm.epsilon)};

  const float first = sum / static_cast<float>(n);
  const __m512 center = _mm512_set1_ps(first);
  even = odd = _mm512_setzero_ps();
  __m512 even_squares = _mm512_setzero_ps();
  __m512 odd_squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const Bf16Pair v = load_pair(x + i, n - i);
    const PairMask mask = pair_mask<T>(n - i);
    const __m512 a = _mm512_maskz_sub_ps(mask.even, v.even, center);
    const __m512 b = _mm512_maskz_sub_ps(mask.odd, v.odd, center);
    even = _mm512_add_ps(even, a);
    odd = _mm512_add_ps(odd, b);
    even_squares = _mm512_add_ps(even_squares, _mm512_mul_ps(a, a));  // not fused: the portable form's bits
    odd_squares = _mm512_add_ps(odd_squares, _mm512_mul_ps(b, b));
  }
  return layer_moments(first, lanes_sum(even, odd), lanes_sum(even_squares, odd_squares), n, norm.epsilon);
}

/// Norms that round once.
template <typename T>
MXLM_TARGET_AVX512 void norm_once_avx512(const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  const Moments m = moments_avx512(norm, x, n);
  const __m512 mean = _mm512_set1_ps(norm.kind == NormKind::rms ? 0 : m.mean);  // x - 0 is x
  const __m512 scale = _mm512_set1_ps(m.scale);
  const __m512 offset = _mm512_set1_ps(norm.weight_offset);
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    Bf16Pair v = load_pair(x + i, n - i);
    v.even = _mm512_mul_ps(_mm512_sub_ps(v.even, mean), scale);
    v.odd = _mm512_mul_ps(_mm512_sub_ps(v.odd, mean), scale);
    if (norm.weight != nullptr) {
      const Bf16Pair w = load_pair(norm.weight + i, n - i);
      v.even = _mm512_mul_ps(v.even, _mm512_add_ps(w.even, offset));
      v.odd = _mm512_mul_ps(v.odd, _mm512_add_ps(w.odd, offset));
    }
    if (norm.bias != nullptr) {
      const Bf16Pair b = load_pair(norm.bias + i, n - i);
      v.even = _mm512_add_ps(v.even, b.even);
      v.odd = _mm512_add_ps(v.odd, b.odd);
    }
    store_pair(y + i, n - i, v);
  }
}

template <typename T>
void dispatch(Isa isa, const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  assert(!rounds_twice(norm) || (norm.bias == nullptr && norm.weight_offset == 0));
  if (rounds_twice(norm)) MXLM_IF_AVX512(isa, norm_avx512(x, norm.weight, norm.epsilon, n, y));
  MXLM_IF_AVX512(isa, norm_once_avx512(norm, x, n, y));
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
