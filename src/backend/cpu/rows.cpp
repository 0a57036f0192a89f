#include "backend/cpu/rows.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <type_traits>

#include "backend/cpu/row_values.hpp"
#include "backend/cpu/simd/math.hpp"

namespace mxlm::cpu {
namespace {

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

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/rows.inl"
#include "backend/cpu/simd/each_target.hpp"

namespace avx512 {

#define MXLM_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

MXLM_TARGET_AVX512_BF16 static inline __m512i convert_pair(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

/// With the processor's own rounding, which makes results below 2^-126 zeros, as its bfloat16 products take them for.
MXLM_TARGET_AVX512_BF16 static void finish_values_bf16(const float* sum, const float* bias, float multiplier,
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
      const Pair y = split_bf16(values);
      const __m512 factor = _mm512_set1_ps(multiplier);
      values = convert_pair(_mm512_mul_ps(y.even, factor), _mm512_mul_ps(y.odd, factor));
      values = _mm512_permutexvar_epi16(interleave, values);
    }
    if (residual != nullptr) {
      const Pair y = split_bf16(values);
      const Pair r = load_pair(mask, residual + i);
      values = convert_pair(_mm512_add_ps(r.even, y.even), _mm512_add_ps(r.odd, y.odd));
      values = _mm512_permutexvar_epi16(interleave, values);
    }
    _mm512_mask_storeu_epi16(out + i, mask, values);
  }
}

MXLM_AVX512_OP Floats load_any(__mmask16 mask, DType type, const std::byte* from) {
  if (type == DType::f32) return _mm512_maskz_loadu_ps(mask, from);
  const __m256i halves = _mm256_maskz_loadu_epi16(mask, from);
  if (type == DType::f16) return _mm512_cvtph_ps(halves);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

MXLM_TARGET_AVX512 static void convert_values(DType from_type, const std::byte* from, DType to_type, std::byte* to,
                                              int64_t n) {
  const auto step = static_cast<int64_t>(dtype_size(from_type));
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    const __m512 v = load_any(mask, from_type, from + i * step);
    if (to_type == DType::f32) {
      _mm512_mask_storeu_ps(to + i * 4, mask, v);
    } else {
      store_bf16(mask, reinterpret_cast<BFloat16*>(to) + i, round_bf16(v));
    }
  }
}

MXLM_TARGET_AVX512 static bool has_small(const BFloat16* x, int64_t n) {
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

MXLM_TARGET_AVX512 static bool has_small(const float* x, int64_t n) {
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

}  // namespace avx512

namespace {

template <typename T, typename Table>
void rotate_any(Isa isa, const Rotation& r, T* x, const Table* cos, const Table* sin) {
  MXLM_DISPATCH(isa, rotate(r, x, cos, sin));
}

}  // namespace

void rotate_row(Isa isa, const Rotation& r, BFloat16* x, const BFloat16* cos, const BFloat16* sin) {
  rotate_any(isa, r, x, cos, sin);
}
void rotate_row(Isa isa, const Rotation& r, float* x, const float* cos, const float* sin) {
  rotate_any(isa, r, x, cos, sin);
}
void rotate_row(Isa isa, const Rotation& r, BFloat16* x, const float* cos, const float* sin) {
  rotate_any(isa, r, x, cos, sin);
}

void finish_row(Isa isa, const float* sum, const float* bias, float multiplier, const BFloat16* residual, int64_t n,
                BFloat16* out) {
  if (isa >= Isa::avx512_bf16) return avx512::finish_values_bf16(sum, bias, multiplier, residual, n, out);
  MXLM_DISPATCH(isa, finish_values(sum, bias, multiplier, residual, n, out));
}
void finish_row(Isa isa, const float* sum, const float* bias, float multiplier, const float* residual, int64_t n,
                float* out) {
  MXLM_DISPATCH(isa, finish_values(sum, bias, multiplier, residual, n, out));
}

void add_row(Isa isa, const BFloat16* a, const BFloat16* b, float multiplier, int64_t n, BFloat16* out) {
  MXLM_DISPATCH(isa, add_values(a, b, multiplier, n, out));
}
void add_row(Isa isa, const float* a, const BFloat16* b, float multiplier, int64_t n, BFloat16* out) {
  MXLM_DISPATCH(isa, add_values(a, b, multiplier, n, out));
}
void add_row(Isa isa, const float* a, const float* b, float multiplier, int64_t n, float* out) {
  MXLM_DISPATCH(isa, add_values(a, b, multiplier, n, out));
}

void scale_row(Isa isa, float multiplier, int64_t n, BFloat16* x) {
  MXLM_DISPATCH(isa, scale_values(multiplier, n, x));
}
void scale_row(Isa isa, float multiplier, int64_t n, float* x) { MXLM_DISPATCH(isa, scale_values(multiplier, n, x)); }

void clamp_row(Isa isa, float limit, int64_t n, BFloat16* x) { MXLM_DISPATCH(isa, clamp_values(limit, n, x)); }
void clamp_row(Isa isa, float limit, int64_t n, float* x) { MXLM_DISPATCH(isa, clamp_values(limit, n, x)); }

void accumulate_row(Isa isa, const BFloat16* y, float weight, int64_t n, float* sum) {
  MXLM_DISPATCH(isa, accumulate_values(y, weight, n, sum));
}
void accumulate_row(Isa isa, const float* y, float weight, int64_t n, float* sum) {
  MXLM_DISPATCH(isa, accumulate_values(y, weight, n, sum));
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
  if (isa >= Isa::avx512) return avx512::convert_values(from_type, source, to_type, target, n);
  convert_portable(from_type, source, to_type, target, n);
}

bool has_small_values(Isa isa, const BFloat16* x, int64_t n) {
  if (isa >= Isa::avx512) return avx512::has_small(x, n);
  return small_portable(x, n);
}
bool has_small_values(Isa isa, const float* x, int64_t n) {
  if (isa >= Isa::avx512) return avx512::has_small(x, n);
  return small_portable(x, n);
}

}  // namespace mxlm::cpu
