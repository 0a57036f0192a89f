#include "backend/cpu/rows.hpp"

#include <array>
#include <cassert>
#include <cmath>
#include <cstring>

#include "backend/cpu/bf16_vector.hpp"
#include "backend/cpu/vector_math.hpp"

namespace mxlm::cpu {
namespace {

constexpr int64_t kLanes = 16;

float load(float x) { return x; }
float load(BFloat16 x) { return to_float(x); }
void store(float value, float& out) { out = value; }
void store(float value, BFloat16& out) { out = to_bfloat16(value); }

/// A value as a tensor of type T would hold it.
template <typename T>
float rounded(float x) {
  if constexpr (sizeof(T) == 2) {
    return to_float(to_bfloat16(x));
  } else {
    return x;
  }
}

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

float activate(Activation activation, float x) {
  constexpr float kInverseSqrt2 = 0.70710678118654752440F;
  constexpr float kSqrt2OverPi = 0.79788456080286535588F;
  switch (activation) {
    case Activation::silu:
      return silu_portable(x);
    case Activation::gelu_tanh:
      return 0.5F * x * (1.0F + std::tanh(kSqrt2OverPi * (x + 0.044715F * x * x * x)));
    case Activation::gelu_erf:
      return 0.5F * x * std::erfc(-x * kInverseSqrt2);  // 1 + erf would cancel
    case Activation::relu:
      return x < 0.0F ? 0.0F : x;  // passes NaN on
  }
  assert(false);
  return x;
}

// --- portable

/// Which of 2 x 16 partial sums takes element j of 32: AVX-512 splits bfloat16s into even and odd places.
template <typename T>
constexpr int64_t lane_of(int64_t j) {
  return sizeof(T) == 2 ? j % 2 * kLanes + j / 2 : j;
}

template <typename T>
void norm_portable(const T* x, const T* weight, float epsilon, int64_t n, T* y) {
  std::array<float, 2 * kLanes> lanes{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    for (int64_t j = 0; j < 2 * kLanes; ++j) lanes[lane_of<T>(j)] += load(x[i + j]) * load(x[i + j]);
  }
  for (int64_t j = 0; i + j < n; ++j) lanes[lane_of<T>(j)] += load(x[i + j]) * load(x[i + j]);
  const float scale = inverse_rms(lanes.data(), n, epsilon);
  for (i = 0; i < n; ++i) store(rounded<T>(load(x[i]) * scale) * load(weight[i]), y[i]);
}

template <typename T>
void gated_portable(Activation activation, const T* gate, const T* up, int64_t n, T* y) {
  if (activation == Activation::silu) {  // the loop that compilers vectorise
    for (int64_t i = 0; i < n; ++i) store(rounded<T>(silu_portable(load(gate[i]))) * load(up[i]), y[i]);
    return;
  }
  for (int64_t i = 0; i < n; ++i) store(rounded<T>(activate(activation, load(gate[i]))) * load(up[i]), y[i]);
}

template <typename T>
void rotate_portable(T* x, int heads, int head_dim, int half, const T* cos, const T* sin) {
  for (int h = 0; h < heads; ++h, x += head_dim) {
    for (int i = 0; i < half; ++i) {
      const float a = load(x[i]);
      const float b = load(x[i + half]);
      store(rounded<T>(a * load(cos[i])) + rounded<T>(b * -load(sin[i])), x[i]);
      store(rounded<T>(b * load(cos[i])) + rounded<T>(a * load(sin[i])), x[i + half]);
    }
  }
}

template <typename T>
void finish_portable(const float* sum, const float* bias, const T* residual, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    float value = rounded<T>(bias == nullptr ? sum[i] : sum[i] + bias[i]);
    if (residual != nullptr) value = load(residual[i]) + value;
    store(value, out[i]);
  }
}

float load_any(DType type, const std::byte* from) {
  if (type == DType::f32) {
    float x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return type == DType::bf16 ? to_float(BFloat16{bits}) : half_to_float(bits);
}

void convert_portable(DType from_type, const std::byte* from, DType to_type, std::byte* to, int64_t n) {
  const auto step = static_cast<int64_t>(dtype_size(from_type));
  for (int64_t i = 0; i < n; ++i) {
    const float x = load_any(from_type, from + i * step);
    if (to_type == DType::f32) {
      std::memcpy(to + i * 4, &x, 4);
    } else {
      const BFloat16 b = to_bfloat16(x);
      std::memcpy(to + i * 2, &b, 2);
    }
  }
}

bool small_portable(const BFloat16* x, int64_t n) {
  bool small = false;
  for (int64_t i = 0; i < n; ++i) {
    small |= static_cast<uint16_t>((x[i].bits & 0x7fffU) - 1U) < (3U << 7) - 1U;
  }
  return small;
}

bool small_portable(const float* x, int64_t n) {
  bool small = false;
  for (int64_t i = 0; i < n; ++i) {
    small |= (std::bit_cast<uint32_t>(x[i]) & 0x7fffffffU) - 1U < (3U << 23) - 1U;
  }
  return small;
}

#if defined(__x86_64__)

// --- AVX-512. Every loop runs over 16 or 32 values, the last ones under a mask.

MXLM_TARGET_AVX512 inline __mmask16 lanes_left(int64_t left) {
  return static_cast<__mmask16>(left >= kLanes ? 0xffffU : (1U << left) - 1U);
}

// float32 rows

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

MXLM_TARGET_AVX512 void silu_gated_avx512(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    const __m512 v = silu_avx512(_mm512_maskz_loadu_ps(mask, gate + i));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

MXLM_TARGET_AVX512 void rotate_avx512(float* x, int heads, int head_dim, int half, const float* cos, const float* sin) {
  for (int i = 0; i < half; i += static_cast<int>(kLanes)) {
    const __mmask16 mask = lanes_left(half - i);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sin + i);
    for (int h = 0; h < heads; ++h) {
      float* first = x + static_cast<int64_t>(h) * head_dim + i;
      float* second = first + half;
      const __m512 a = _mm512_maskz_loadu_ps(mask, first);
      const __m512 b = _mm512_maskz_loadu_ps(mask, second);
      _mm512_mask_storeu_ps(first, mask, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
      _mm512_mask_storeu_ps(second, mask, _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
    }
  }
}

MXLM_TARGET_AVX512 void finish_avx512(const float* sum, const float* bias, const float* residual, int64_t n,
                                      float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    __m512 v = _mm512_maskz_loadu_ps(mask, sum + i);
    if (bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + i));
    if (residual != nullptr) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + i), v);
    _mm512_mask_storeu_ps(out + i, mask, v);
  }
}

// bfloat16 rows. What is computed from bfloat16s alone rounds without care for NaNs: see round_bf16_clean.

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

MXLM_TARGET_AVX512 void silu_gated_avx512(const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y) {
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __mmask32 mask = lanes_left_32(n - i);
    const Bf16Pair g = load_bf16_pair(mask, gate + i);
    const Bf16Pair u = load_bf16_pair(mask, up + i);
    const __m512i first = round_bf16_bits(_mm512_mul_ps(round_bf16_clean(silu_avx512(g.even)), u.even));
    const __m512i second = round_bf16_bits(_mm512_mul_ps(round_bf16_clean(silu_avx512(g.odd)), u.odd));
    _mm512_mask_storeu_epi16(y + i, mask, join_bf16(first, second));
  }
}

/// Bits of round(round(a * c) +- round(b * s)).
MXLM_TARGET_AVX512 inline __m512i turn_plus(__m512 a, __m512 c, __m512 b, __m512 s) {
  return round_bf16_bits(_mm512_add_ps(round_bf16_clean(_mm512_mul_ps(a, c)), round_bf16_clean(_mm512_mul_ps(b, s))));
}
MXLM_TARGET_AVX512 inline __m512i turn_minus(__m512 a, __m512 c, __m512 b, __m512 s) {
  return round_bf16_bits(_mm512_sub_ps(round_bf16_clean(_mm512_mul_ps(a, c)), round_bf16_clean(_mm512_mul_ps(b, s))));
}

MXLM_TARGET_AVX512 void rotate_avx512(BFloat16* x, int heads, int head_dim, int half, const BFloat16* cos,
                                      const BFloat16* sin) {
  for (int i = 0; i < half; i += static_cast<int>(2 * kLanes)) {
    const __mmask32 mask = lanes_left_32(half - i);
    const Bf16Pair c = load_bf16_pair(mask, cos + i);
    const Bf16Pair s = load_bf16_pair(mask, sin + i);
    for (int h = 0; h < heads; ++h) {
      BFloat16* first = x + static_cast<int64_t>(h) * head_dim + i;
      BFloat16* second = first + half;
      const Bf16Pair a = load_bf16_pair(mask, first);
      const Bf16Pair b = load_bf16_pair(mask, second);
      _mm512_mask_storeu_epi16(
          first, mask, join_bf16(turn_minus(a.even, c.even, b.even, s.even), turn_minus(a.odd, c.odd, b.odd, s.odd)));
      _mm512_mask_storeu_epi16(
          second, mask, join_bf16(turn_plus(b.even, c.even, a.even, s.even), turn_plus(b.odd, c.odd, a.odd, s.odd)));
    }
  }
}

// The sums may hold NaNs of any payload (a float32 weight's), so these round with care.
MXLM_TARGET_AVX512 void finish_avx512(const float* sum, const float* bias, const BFloat16* residual, int64_t n,
                                      BFloat16* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    __m512 v = _mm512_maskz_loadu_ps(mask, sum + i);
    if (bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + i));
    __m512i bits = round_bf16(v);
    if (residual != nullptr) bits = round_bf16(_mm512_add_ps(load_bf16(mask, residual + i), truncate_bf16(bits)));
    store_bf16(mask, out + i, bits);
  }
}

#define MXLM_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

MXLM_TARGET_AVX512_BF16 inline __m512i convert_pair(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

/// With the processor's own rounding, which makes results below 2^-126 zeros, as its bfloat16 products take them for.
MXLM_TARGET_AVX512_BF16 void finish_avx512_bf16(const float* sum, const float* bias, const BFloat16* residual,
                                                int64_t n, BFloat16* out) {
  // Puts the even places, then the odd ones, back in order.
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __mmask32 mask = lanes_left_32(n - i);
    const auto low_mask = static_cast<__mmask16>(mask);
    const auto high_mask = static_cast<__mmask16>(mask >> 16);
    __m512 low = _mm512_maskz_loadu_ps(low_mask, sum + i);
    __m512 high = _mm512_maskz_loadu_ps(high_mask, sum + i + kLanes);
    if (bias != nullptr) {
      low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(low_mask, bias + i));
      high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(high_mask, bias + i + kLanes));
    }
    __m512i values = convert_pair(low, high);
    if (residual != nullptr) {
      const Bf16Pair y = split_bf16(values);
      const Bf16Pair r = load_bf16_pair(mask, residual + i);
      values = convert_pair(_mm512_add_ps(r.even, y.even), _mm512_add_ps(r.odd, y.odd));
      values = _mm512_permutexvar_epi16(interleave, values);
    }
    _mm512_mask_storeu_epi16(out + i, mask, values);
  }
}

MXLM_TARGET_AVX512 inline __m512 load_any16(__mmask16 mask, DType type, const std::byte* from) {
  if (type == DType::f32) return _mm512_maskz_loadu_ps(mask, from);
  const __m256i halves = _mm256_maskz_loadu_epi16(mask, from);
  if (type == DType::f16) return _mm512_cvtph_ps(halves);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

MXLM_TARGET_AVX512 void convert_avx512(DType from_type, const std::byte* from, DType to_type, std::byte* to,
                                       int64_t n) {
  const auto step = static_cast<int64_t>(dtype_size(from_type));
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    const __m512 v = load_any16(mask, from_type, from + i * step);
    if (to_type == DType::f32) {
      _mm512_mask_storeu_ps(to + i * 4, mask, v);
    } else {
      store_bf16(mask, to + i * 2, round_bf16(v));
    }
  }
}

MXLM_TARGET_AVX512 bool small_avx512(const BFloat16* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  const __m512i one = _mm512_set1_epi16(1);
  const __m512i limit = _mm512_set1_epi16((3 << 7) - 1);
  __mmask32 small = 0;
  for (int64_t i = 0; i < n; i += 32) {
    const __m512i v = _mm512_and_si512(_mm512_maskz_loadu_epi16(lanes_left_32(n - i), x + i), magnitude);
    small |= _mm512_cmplt_epu16_mask(_mm512_sub_epi16(v, one), limit);
  }
  return small != 0;
}

MXLM_TARGET_AVX512 bool small_avx512(const float* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i one = _mm512_set1_epi32(1);
  const __m512i limit = _mm512_set1_epi32((3 << 23) - 1);
  unsigned small = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m512i v = _mm512_and_si512(_mm512_maskz_loadu_epi32(lanes_left(n - i), x + i), magnitude);
    small |= _mm512_cmplt_epu32_mask(_mm512_sub_epi32(v, one), limit);
  }
  return small != 0;
}

// `call` where the instruction set has AVX-512, else on to the next statement.
#define MXLM_IF_AVX512(isa, call) \
  if ((isa) >= Isa::avx512) return call
#else
#define MXLM_IF_AVX512(isa, call) static_cast<void>(isa)
#endif

}  // namespace

void norm_row(Isa isa, const BFloat16* x, const BFloat16* weight, float epsilon, int64_t n, BFloat16* y) {
  MXLM_IF_AVX512(isa, norm_avx512(x, weight, epsilon, n, y));
  norm_portable(x, weight, epsilon, n, y);
}
void norm_row(Isa isa, const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  MXLM_IF_AVX512(isa, norm_avx512(x, weight, epsilon, n, y));
  norm_portable(x, weight, epsilon, n, y);
}

void gated_row(Isa isa, Activation activation, const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y) {
  if (activation == Activation::silu) MXLM_IF_AVX512(isa, silu_gated_avx512(gate, up, n, y));
  gated_portable(activation, gate, up, n, y);
}
void gated_row(Isa isa, Activation activation, const float* gate, const float* up, int64_t n, float* y) {
  if (activation == Activation::silu) MXLM_IF_AVX512(isa, silu_gated_avx512(gate, up, n, y));
  gated_portable(activation, gate, up, n, y);
}

void rotate_row(Isa isa, BFloat16* x, int heads, int head_dim, int half, const BFloat16* cos, const BFloat16* sin) {
  MXLM_IF_AVX512(isa, rotate_avx512(x, heads, head_dim, half, cos, sin));
  rotate_portable(x, heads, head_dim, half, cos, sin);
}
void rotate_row(Isa isa, float* x, int heads, int head_dim, int half, const float* cos, const float* sin) {
  MXLM_IF_AVX512(isa, rotate_avx512(x, heads, head_dim, half, cos, sin));
  rotate_portable(x, heads, head_dim, half, cos, sin);
}

void finish_row(Isa isa, const float* sum, const float* bias, const BFloat16* residual, int64_t n, BFloat16* out) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512_bf16) return finish_avx512_bf16(sum, bias, residual, n, out);
#endif
  MXLM_IF_AVX512(isa, finish_avx512(sum, bias, residual, n, out));
  finish_portable(sum, bias, residual, n, out);
}
void finish_row(Isa isa, const float* sum, const float* bias, const float* residual, int64_t n, float* out) {
  MXLM_IF_AVX512(isa, finish_avx512(sum, bias, residual, n, out));
  finish_portable(sum, bias, residual, n, out);
}

void convert_row(Isa isa, DType from_type, const void* from, DType to_type, void* to, int64_t n) {
  assert(from_type == DType::f32 || from_type == DType::bf16 || from_type == DType::f16);
  assert(to_type == DType::f32 || to_type == DType::bf16);
  if (from_type == to_type) {
    std::memcpy(to, from, static_cast<size_t>(n) * dtype_size(to_type));
    return;
  }
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  MXLM_IF_AVX512(isa, convert_avx512(from_type, source, to_type, target, n));
  convert_portable(from_type, source, to_type, target, n);
}

bool has_small_values(Isa isa, const BFloat16* x, int64_t n) {
  MXLM_IF_AVX512(isa, small_avx512(x, n));
  return small_portable(x, n);
}
bool has_small_values(Isa isa, const float* x, int64_t n) {
  MXLM_IF_AVX512(isa, small_avx512(x, n));
  return small_portable(x, n);
}

}  // namespace mxlm::cpu
