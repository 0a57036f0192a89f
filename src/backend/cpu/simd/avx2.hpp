#pragma once

// Sixteen float32 lanes in two AVX2 registers, with FMA: the names and results of avx512.hpp, whose comments hold here.

#include <cstring>

#include "backend/cpu/vector_math.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu::avx2 {

#define MXLM_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define MXLM_AVX2_OP __attribute__((target("avx2,fma"), always_inline)) static inline

struct Floats {
  __m256 low, high;
};
struct Ints {
  __m256i low, high;
};
using Mask = Floats;  // all bits of a lane, or none
struct Left {
  int64_t count;
};
struct Left32 {
  int64_t count;
};

MXLM_AVX2_OP Left lanes_left(int64_t left) { return {left}; }
MXLM_AVX2_OP Left32 lanes_left_32(int64_t left) { return {left}; }

/// All bits of the lanes before `count`, which counts from `first` on.
MXLM_AVX2_OP __m256i lanes_before(int64_t count, int first) {
  const __m256i place = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), place);
}

MXLM_AVX2_OP Floats spread(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
MXLM_AVX2_OP Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
MXLM_AVX2_OP Floats places() {
  return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
}
MXLM_AVX2_OP Floats load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
MXLM_AVX2_OP Floats load(Left left, const float* x) {
  if (left.count >= 16) return load(x);
  return {_mm256_maskload_ps(x, lanes_before(left.count, 0)), _mm256_maskload_ps(x + 8, lanes_before(left.count, 8))};
}
MXLM_AVX2_OP void store(float* x, Floats v) {
  _mm256_storeu_ps(x, v.low);
  _mm256_storeu_ps(x + 8, v.high);
}
MXLM_AVX2_OP void store(Left left, float* x, Floats v) {
  if (left.count >= 16) return store(x, v);
  _mm256_maskstore_ps(x, lanes_before(left.count, 0), v.low);
  _mm256_maskstore_ps(x + 8, lanes_before(left.count, 8), v.high);
}

MXLM_AVX2_OP Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats sub(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats mul(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats div(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats fma(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
MXLM_AVX2_OP Floats fms(Floats a, Floats b, Floats c) {
  return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
MXLM_AVX2_OP Floats fnma(Floats a, Floats b, Floats c) {
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
MXLM_AVX2_OP Floats min_of(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats max_of(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats bit_and(Floats a, Floats b) { return {_mm256_and_ps(a.low, b.low), _mm256_and_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats bit_or(Floats a, Floats b) { return {_mm256_or_ps(a.low, b.low), _mm256_or_ps(a.high, b.high)}; }
MXLM_AVX2_OP Floats and_not(Floats a, Floats b) {
  return {_mm256_andnot_ps(a.low, b.low), _mm256_andnot_ps(a.high, b.high)};
}

MXLM_AVX2_OP Mask less(Floats a, Floats b) {
  return {_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)};
}
MXLM_AVX2_OP Mask not_less(Floats a, Floats b) {
  return {_mm256_cmp_ps(a.low, b.low, _CMP_NLT_UQ), _mm256_cmp_ps(a.high, b.high, _CMP_NLT_UQ)};
}
MXLM_AVX2_OP Mask not_equal(Floats a, Floats b) {
  return {_mm256_cmp_ps(a.low, b.low, _CMP_NEQ_UQ), _mm256_cmp_ps(a.high, b.high, _CMP_NEQ_UQ)};
}
MXLM_AVX2_OP bool any(Mask m) { return _mm256_movemask_ps(_mm256_or_ps(m.low, m.high)) != 0; }
MXLM_AVX2_OP Floats blend(Mask m, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.low, yes.low, m.low), _mm256_blendv_ps(no.high, yes.high, m.high)};
}
MXLM_AVX2_OP Floats keep(Mask m, Floats x) { return bit_and(m, x); }
MXLM_AVX2_OP Mask lanes(int64_t begin, int64_t end) {
  const __m256i low = _mm256_andnot_si256(lanes_before(begin, 0), lanes_before(end, 0));
  const __m256i high = _mm256_andnot_si256(lanes_before(begin, 8), lanes_before(end, 8));
  return {_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)};
}

MXLM_AVX2_OP float sum_of_lanes(Floats x) {
  const __m256 eight = _mm256_add_ps(x.high, x.low);
  const __m128 four = _mm_add_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
MXLM_AVX2_OP float max_of_lanes(Floats x) {
  const __m256 eight = _mm256_max_ps(x.high, x.low);
  const __m128 four = _mm_max_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

MXLM_AVX2_OP __m256 sixteenth_power(__m256 j) {
  const __m256i bits = _mm256_castps_si256(j);
  const __m256 first = _mm256_permutevar8x32_ps(_mm256_loadu_ps(detail::kSixteenthPowers), bits);
  const __m256 second = _mm256_permutevar8x32_ps(_mm256_loadu_ps(detail::kSixteenthPowers + 8), bits);
  return _mm256_blendv_ps(first, second, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 28)));
}
MXLM_AVX2_OP Floats sixteenth_power(Floats j) { return {sixteenth_power(j.low), sixteenth_power(j.high)}; }

/// Two factors, as 2^floor(n) may be below or above the normal numbers: the first product is exact for the |x| in
/// [2^-1, 2^2) that exponentials have, the second rounds.
MXLM_AVX2_OP __m256 times_power(__m256 x, __m256 n) {
  __m256 bounded = _mm256_max_ps(_mm256_floor_ps(n), _mm256_set1_ps(-252.0F));  // also of NaN, as x is NaN then
  bounded = _mm256_min_ps(bounded, _mm256_set1_ps(254.0F));
  const __m256i power = _mm256_cvtps_epi32(bounded);
  const __m256i half = _mm256_srai_epi32(power, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(power, half), bias), 23);
  const __m256 y = _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
  return _mm256_and_ps(y, _mm256_cmp_ps(n, _mm256_set1_ps(-__builtin_inff()), _CMP_NEQ_UQ));
}
MXLM_AVX2_OP Floats times_power(Floats x, Floats n) { return {times_power(x.low, n.low), times_power(x.high, n.high)}; }

/// Rounded down, as vreduceps rounds: a difference that was rounded up is one unit in the last place too large.
MXLM_AVX2_OP __m256 fraction(__m256 x) {
  const __m256 floor = _mm256_floor_ps(x);
  const __m256 difference = _mm256_sub_ps(x, floor);
  const __m256 raised = _mm256_cmp_ps(_mm256_add_ps(difference, floor), x, _CMP_GT_OQ);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(difference), _mm256_castps_si256(raised)));
}
MXLM_AVX2_OP Floats fraction(Floats x) { return {fraction(x.low), fraction(x.high)}; }

// --- bfloat16

MXLM_AVX2_OP __m256 widen_bf16(const BFloat16* x) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
/// At most 32 values at the end of a row, the others +0.
struct RowEnd {
  alignas(32) BFloat16 values[32];
  RowEnd() = default;
  RowEnd(const BFloat16* x, int64_t count) : values{} {
    std::memcpy(values, x, static_cast<size_t>(count) * sizeof(BFloat16));
  }
  void copy_to(BFloat16* x, int64_t count) const {
    std::memcpy(x, values, static_cast<size_t>(count) * sizeof(BFloat16));
  }
};
MXLM_AVX2_OP Floats load_bf16(Left left, const BFloat16* x) {
  if (left.count >= 16) return {widen_bf16(x), widen_bf16(x + 8)};
  const RowEnd end(x, left.count);
  return {widen_bf16(end.values), widen_bf16(end.values + 8)};
}
MXLM_AVX2_OP __m256i round_bf16_bits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
}
MXLM_AVX2_OP Ints round_bf16_bits(Floats x) { return {round_bf16_bits(x.low), round_bf16_bits(x.high)}; }
MXLM_AVX2_OP __m256i round_bf16(__m256 x) {
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256 quiet = _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x400000)));
  return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(round_bf16_bits(x)), quiet, nan));
}
MXLM_AVX2_OP Ints round_bf16(Floats x) { return {round_bf16(x.low), round_bf16(x.high)}; }
MXLM_AVX2_OP __m256 truncate_bf16(__m256i bits) {
  return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}
MXLM_AVX2_OP Floats truncate_bf16(Ints bits) { return {truncate_bf16(bits.low), truncate_bf16(bits.high)}; }
MXLM_AVX2_OP void store_all_bf16(BFloat16* out, Ints bits) {
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(bits.low, 16), _mm256_srli_epi32(bits.high, 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute4x64_epi64(packed, 0xd8));
}
MXLM_AVX2_OP void store_bf16(Left left, BFloat16* out, Ints bits) {
  if (left.count >= 16) return store_all_bf16(out, bits);
  RowEnd end;
  store_all_bf16(end.values, bits);
  end.copy_to(out, left.count);
}

struct Pair {
  Floats even, odd;
};
MXLM_AVX2_OP Pair load_whole_pair(const BFloat16* x) {
  const Ints both{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)),
                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 16))};
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(both.low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(both.high, 16))},
          truncate_bf16(both)};
}
MXLM_AVX2_OP Pair load_pair(Left32 left, const BFloat16* x) {
  if (left.count >= 32) return load_whole_pair(x);
  const RowEnd end(x, left.count);
  return load_whole_pair(end.values);
}
MXLM_AVX2_OP void store_whole_pair(BFloat16* out, Ints even, Ints odd) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm256_blend_epi16(_mm256_srli_epi32(even.low, 16), odd.low, 0xaa));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16),
                      _mm256_blend_epi16(_mm256_srli_epi32(even.high, 16), odd.high, 0xaa));
}
MXLM_AVX2_OP void store_pair(Left32 left, BFloat16* out, Ints even, Ints odd) {
  if (left.count >= 32) return store_whole_pair(out, even, odd);
  RowEnd end;
  store_whole_pair(end.values, even, odd);
  end.copy_to(out, left.count);
}
template <int places>
MXLM_AVX2_OP __m256 every_second(__m256 a, __m256 b) {
  const __m256 mixed = _mm256_shuffle_ps(a, b, places);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
MXLM_AVX2_OP Pair load_split(int64_t left, const float* x) {
  const Floats low = load(lanes_left(left), x);
  const Floats high = load(lanes_left(left - 16), x + 16);
  return {{every_second<0x88>(low.low, low.high), every_second<0x88>(high.low, high.high)},
          {every_second<0xdd>(low.low, low.high), every_second<0xdd>(high.low, high.high)}};
}
/// Eight of each, interleaved.
MXLM_AVX2_OP Floats interleave(__m256 even, __m256 odd) {
  const __m256 low = _mm256_unpacklo_ps(even, odd);  // 0, 1 and 4, 5 of each
  const __m256 high = _mm256_unpackhi_ps(even, odd);
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}
MXLM_AVX2_OP void store_split(int64_t left, float* x, const Pair& v) {
  store(lanes_left(left), x, interleave(v.even.low, v.odd.low));
  store(lanes_left(left - 16), x + 16, interleave(v.even.high, v.odd.high));
}

}  // namespace mxlm::cpu::avx2
