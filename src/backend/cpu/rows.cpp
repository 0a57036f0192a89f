#include "backend/cpu/rows.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <type_traits>

#include "backend/cpu/row_values.hpp"

namespace mxlm::cpu {
namespace {

// --- portable

/// x cos + y sin, of which the caller rounds the sum; products are rounded to the tables' type.
template <typename Table>
float turned(float x, float cos, float y, float sin) {
  return rounded<Table>(x * cos) + rounded<Table>(y * sin);
}

template <typename T, typename Table>
void rotate_portable(const Rotation& r, T* x, const Table* cos, const Table* sin) {
  const int64_t step = r.interleaved ? 2 : 1;
  const int64_t other = r.interleaved ? 1 : r.half;
  for (int h = 0; h < r.heads; ++h, x += r.head_stride) {
    for (int i = 0; i < r.half; ++i) {
      T& first = x[step * i];
      T& second = x[step * i + other];
      const float a = load(first);
      const float b = load(second);
      store(turned<Table>(a, load(cos[i]), b, -load(sin[i])), first);
      store(turned<Table>(b, load(cos[i]), a, load(sin[i])), second);
    }
  }
}

template <typename T>
void finish_portable(const float* sum, const float* bias, float multiplier, const T* residual, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    float value = rounded<T>(bias == nullptr ? sum[i] : sum[i] + bias[i]);
    if (multiplier != 1) value = rounded<T>(value * multiplier);
    if (residual != nullptr) value = load(residual[i]) + value;
    store(value, out[i]);
  }
}

template <typename A, typename T>
void add_portable(const A* a, const T* b, float multiplier, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    float value = rounded<T>(load(a[i]));
    if (multiplier != 1) value = rounded<T>(value * multiplier);
    store(value + load(b[i]), out[i]);
  }
}

template <typename T>
void scale_portable(float multiplier, int64_t n, T* x) {
  for (int64_t i = 0; i < n; ++i) store(load(x[i]) * multiplier, x[i]);
}

template <typename T>
void clamp_portable(float limit, int64_t n, T* x) {
  for (int64_t i = 0; i < n; ++i) {
    float value = load(x[i]);
    value = value > limit ? limit : value;  // passes NaN on
    store(value < -limit ? -limit : value, x[i]);
  }
}

template <typename T>
void accumulate_portable(const T* y, float weight, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; ++i) sum[i] += weight * load(y[i]);
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

// --- AVX-512. Every loop runs over 16 or 32 values, the last ones under a mask.

// float32 rows

MXLM_TARGET_AVX512 void rotate_avx512(const Rotation& r, float* x, const float* cos, const float* sin) {
  for (int i = 0; i < r.half; i += static_cast<int>(kLanes)) {
    const __mmask16 mask = lanes_left(r.half - i);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sin + i);
    for (int h = 0; h < r.heads; ++h) {
      float* first = x + static_cast<int64_t>(h) * r.head_stride + i;
      float* second = first + r.half;
      const __m512 a = _mm512_maskz_loadu_ps(mask, first);
      const __m512 b = _mm512_maskz_loadu_ps(mask, second);
      _mm512_mask_storeu_ps(first, mask, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
      _mm512_mask_storeu_ps(second, mask, _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
    }
  }
}

MXLM_TARGET_AVX512 void finish_avx512(const float* sum, const float* bias, float multiplier, const float* residual,
                                      int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    __m512 v = _mm512_maskz_loadu_ps(mask, sum + i);
    if (bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + i));
    if (multiplier != 1) v = _mm512_mul_ps(v, _mm512_set1_ps(multiplier));
    if (residual != nullptr) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + i), v);
    _mm512_mask_storeu_ps(out + i, mask, v);
  }
}

// bfloat16 rows. What is computed from bfloat16s alone rounds without care for NaNs: see round_bf16_clean.

/// Bits of round(round(a * c) +- round(b * s)).
MXLM_TARGET_AVX512 inline __m512i turn_plus(__m512 a, __m512 c, __m512 b, __m512 s) {
  return round_bf16_bits(_mm512_add_ps(round_bf16_clean(_mm512_mul_ps(a, c)), round_bf16_clean(_mm512_mul_ps(b, s))));
}
MXLM_TARGET_AVX512 inline __m512i turn_minus(__m512 a, __m512 c, __m512 b, __m512 s) {
  return round_bf16_bits(_mm512_sub_ps(round_bf16_clean(_mm512_mul_ps(a, c)), round_bf16_clean(_mm512_mul_ps(b, s))));
}

MXLM_TARGET_AVX512 void rotate_avx512(const Rotation& r, BFloat16* x, const BFloat16* cos, const BFloat16* sin) {
  for (int i = 0; i < r.half; i += static_cast<int>(2 * kLanes)) {
    const __mmask32 mask = lanes_left_32(r.half - i);
    const Bf16Pair c = load_bf16_pair(mask, cos + i);
    const Bf16Pair s = load_bf16_pair(mask, sin + i);
    for (int h = 0; h < r.heads; ++h) {
      BFloat16* first = x + static_cast<int64_t>(h) * r.head_stride + i;
      BFloat16* second = first + r.half;
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
MXLM_TARGET_AVX512 void finish_avx512(const float* sum, const float* bias, float multiplier, const BFloat16* residual,
                                      int64_t n, BFloat16* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    __m512 v = _mm512_maskz_loadu_ps(mask, sum + i);
    if (bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + i));
    __m512i bits = round_bf16(v);
    if (multiplier != 1) bits = round_bf16(_mm512_mul_ps(truncate_bf16(bits), _mm512_set1_ps(multiplier)));
    if (residual != nullptr) bits = round_bf16(_mm512_add_ps(load_bf16(mask, residual + i), truncate_bf16(bits)));
    store_bf16(mask, out + i, bits);
  }
}

#define MXLM_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

MXLM_TARGET_AVX512_BF16 inline __m512i convert_pair(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

/// With the processor's own rounding, which makes results below 2^-126 zeros, as its bfloat16 products take them for.
MXLM_TARGET_AVX512_BF16 void finish_avx512_bf16(const float* sum, const float* bias, float multiplier,
                                                const BFloat16* residual, int64_t n, BFloat16* out) {
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
    if (multiplier != 1) {
      const Bf16Pair y = split_bf16(values);
      const __m512 factor = _mm512_set1_ps(multiplier);
      values = convert_pair(_mm512_mul_ps(y.even, factor), _mm512_mul_ps(y.odd, factor));
      values = _mm512_permutexvar_epi16(interleave, values);
    }
    if (residual != nullptr) {
      const Bf16Pair y = split_bf16(values);
      const Bf16Pair r = load_bf16_pair(mask, residual + i);
      values = convert_pair(_mm512_add_ps(r.even, y.even), _mm512_add_ps(r.odd, y.odd));
      values = _mm512_permutexvar_epi16(interleave, values);
    }
    _mm512_mask_storeu_epi16(out + i, mask, values);
  }
}

/// A vector of a row, and back. What may be rounded are values that came from a row alone or with a finite factor: NaNs
/// of any payload where the row is float32.
MXLM_TARGET_AVX512 inline __m512 load_row(__mmask16 mask, const BFloat16* x) { return load_bf16(mask, x); }
MXLM_TARGET_AVX512 inline __m512 load_row(__mmask16 mask, const float* x) { return _mm512_maskz_loadu_ps(mask, x); }
MXLM_TARGET_AVX512 inline void store_row(__mmask16 mask, BFloat16* x, __m512 v) { store_bf16(mask, x, round_bf16(v)); }
MXLM_TARGET_AVX512 inline void store_row(__mmask16 mask, float* x, __m512 v) { _mm512_mask_storeu_ps(x, mask, v); }
template <typename T>
MXLM_TARGET_AVX512 inline __m512 held(__m512 v) {
  if constexpr (sizeof(T) == 2) return truncate_bf16(round_bf16(v));
  return v;
}

/// Pairs that lie side by side, 8 at a time.
template <typename T, typename Table>
MXLM_TARGET_AVX512 void rotate_interleaved_avx512(const Rotation& r, T* x, const Table* cos, const Table* sin) {
  const __m512i each_twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __m512 minus_even = _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000));
  for (int i = 0; i < r.half; i += 8) {
    const __mmask16 mask = lanes_left(int64_t{2} * (r.half - i));
    const __mmask16 half_mask = lanes_left(std::min(r.half - i, 8));
    const __m512 c = _mm512_permutexvar_ps(each_twice, load_row(half_mask, cos + i));
    const __m512 s = _mm512_xor_ps(_mm512_permutexvar_ps(each_twice, load_row(half_mask, sin + i)), minus_even);
    for (int h = 0; h < r.heads; ++h) {
      T* at = x + static_cast<int64_t>(h) * r.head_stride + 2 * i;
      const __m512 v = load_row(mask, at);
      const __m512 swapped = _mm512_permute_ps(v, 0xb1);
      store_row(mask, at, _mm512_add_ps(held<Table>(_mm512_mul_ps(v, c)), held<Table>(_mm512_mul_ps(swapped, s))));
    }
  }
}

MXLM_TARGET_AVX512 void rotate_wide_tables_avx512(const Rotation& r, BFloat16* x, const float* cos, const float* sin) {
  for (int i = 0; i < r.half; i += static_cast<int>(kLanes)) {
    const __mmask16 mask = lanes_left(r.half - i);
    const __m512 c = load_row(mask, cos + i);
    const __m512 s = load_row(mask, sin + i);
    for (int h = 0; h < r.heads; ++h) {
      BFloat16* first = x + static_cast<int64_t>(h) * r.head_stride + i;
      BFloat16* second = first + r.half;
      const __m512 a = load_row(mask, first);
      const __m512 b = load_row(mask, second);
      store_row(mask, first, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
      store_row(mask, second, _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
    }
  }
}

template <typename A, typename T>
MXLM_TARGET_AVX512 void add_avx512(const A* a, const T* b, float multiplier, int64_t n, T* out) {
  const __m512 factor = _mm512_set1_ps(multiplier);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    __m512 v = load_row(mask, a + i);
    if constexpr (!std::is_same_v<A, T>) v = held<T>(v);
    if (multiplier != 1) v = held<T>(_mm512_mul_ps(v, factor));
    store_row(mask, out + i, _mm512_add_ps(v, load_row(mask, b + i)));
  }
}

template <typename T>
MXLM_TARGET_AVX512 void scale_avx512(float multiplier, int64_t n, T* x) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    store_row(mask, x + i, _mm512_mul_ps(load_row(mask, x + i), _mm512_set1_ps(multiplier)));
  }
}

template <typename T>
MXLM_TARGET_AVX512 void clamp_avx512(float limit, int64_t n, T* x) {
  const __m512 high = _mm512_set1_ps(limit);
  const __m512 low = _mm512_set1_ps(-limit);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    store_row(mask, x + i, _mm512_max_ps(low, _mm512_min_ps(high, load_row(mask, x + i))));  // pass NaN on
  }
}

template <typename T>
MXLM_TARGET_AVX512 void accumulate_avx512(const T* y, float weight, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    const __m512 v = _mm512_mul_ps(load_row(mask, y + i), _mm512_set1_ps(weight));
    store_row(mask, sum + i, _mm512_add_ps(load_row(mask, sum + i), v));
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

}  // namespace

void rotate_row(Isa isa, const Rotation& r, BFloat16* x, const BFloat16* cos, const BFloat16* sin) {
  if (r.interleaved) MXLM_IF_AVX512(isa, rotate_interleaved_avx512(r, x, cos, sin));
  MXLM_IF_AVX512(isa, rotate_avx512(r, x, cos, sin));
  rotate_portable(r, x, cos, sin);
}
void rotate_row(Isa isa, const Rotation& r, float* x, const float* cos, const float* sin) {
  if (r.interleaved) MXLM_IF_AVX512(isa, rotate_interleaved_avx512(r, x, cos, sin));
  MXLM_IF_AVX512(isa, rotate_avx512(r, x, cos, sin));
  rotate_portable(r, x, cos, sin);
}
void rotate_row(Isa isa, const Rotation& r, BFloat16* x, const float* cos, const float* sin) {
  if (r.interleaved) MXLM_IF_AVX512(isa, rotate_interleaved_avx512(r, x, cos, sin));
  MXLM_IF_AVX512(isa, rotate_wide_tables_avx512(r, x, cos, sin));
  rotate_portable(r, x, cos, sin);
}

void finish_row(Isa isa, const float* sum, const float* bias, float multiplier, const BFloat16* residual, int64_t n,
                BFloat16* out) {
  if (isa >= Isa::avx512_bf16) return finish_avx512_bf16(sum, bias, multiplier, residual, n, out);
  MXLM_IF_AVX512(isa, finish_avx512(sum, bias, multiplier, residual, n, out));
  finish_portable(sum, bias, multiplier, residual, n, out);
}
void finish_row(Isa isa, const float* sum, const float* bias, float multiplier, const float* residual, int64_t n,
                float* out) {
  MXLM_IF_AVX512(isa, finish_avx512(sum, bias, multiplier, residual, n, out));
  finish_portable(sum, bias, multiplier, residual, n, out);
}

void add_row(Isa isa, const BFloat16* a, const BFloat16* b, float multiplier, int64_t n, BFloat16* out) {
  MXLM_IF_AVX512(isa, add_avx512(a, b, multiplier, n, out));
  add_portable(a, b, multiplier, n, out);
}
void add_row(Isa isa, const float* a, const BFloat16* b, float multiplier, int64_t n, BFloat16* out) {
  MXLM_IF_AVX512(isa, add_avx512(a, b, multiplier, n, out));
  add_portable(a, b, multiplier, n, out);
}
void add_row(Isa isa, const float* a, const float* b, float multiplier, int64_t n, float* out) {
  MXLM_IF_AVX512(isa, add_avx512(a, b, multiplier, n, out));
  add_portable(a, b, multiplier, n, out);
}

void scale_row(Isa isa, float multiplier, int64_t n, BFloat16* x) {
  MXLM_IF_AVX512(isa, scale_avx512(multiplier, n, x));
  scale_portable(multiplier, n, x);
}
void scale_row(Isa isa, float multiplier, int64_t n, float* x) {
  MXLM_IF_AVX512(isa, scale_avx512(multiplier, n, x));
  scale_portable(multiplier, n, x);
}

void clamp_row(Isa isa, float limit, int64_t n, BFloat16* x) {
  MXLM_IF_AVX512(isa, clamp_avx512(limit, n, x));
  clamp_portable(limit, n, x);
}
void clamp_row(Isa isa, float limit, int64_t n, float* x) {
  MXLM_IF_AVX512(isa, clamp_avx512(limit, n, x));
  clamp_portable(limit, n, x);
}

void accumulate_row(Isa isa, const BFloat16* y, float weight, int64_t n, float* sum) {
  MXLM_IF_AVX512(isa, accumulate_avx512(y, weight, n, sum));
  accumulate_portable(y, weight, n, sum);
}
void accumulate_row(Isa isa, const float* y, float weight, int64_t n, float* sum) {
  MXLM_IF_AVX512(isa, accumulate_avx512(y, weight, n, sum));
  accumulate_portable(y, weight, n, sum);
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
