#pragma once

// Sixteen float32 lanes in one AVX-512 register. avx2.hpp has the same names with the same results, bit for bit; the
// bodies of row operations (*.inl) are written in these names and compiled once for each.

#include "backend/cpu/vector_math.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu::avx512 {

#define MXLM_AVX512_OP MXLM_TARGET_AVX512 __attribute__((always_inline)) static inline

using Floats = __m512;
using Ints = __m512i;
using Mask = __mmask16;    // lanes that a comparison holds for
using Left = __mmask16;    // the first lanes of a row's end
using Left32 = __mmask32;  // the same of 32 bfloat16s

/// Lanes [0, left), all of them for left >= 16 (32).
MXLM_AVX512_OP Left lanes_left(int64_t left) {
  return static_cast<Left>(left >= 16 ? 0xffffU : left <= 0 ? 0U : (1U << left) - 1U);
}
MXLM_AVX512_OP Left32 lanes_left_32(int64_t left) { return static_cast<Left32>(left >= 32 ? ~0U : (1U << left) - 1U); }

MXLM_AVX512_OP Floats spread(float x) { return _mm512_set1_ps(x); }
MXLM_AVX512_OP Floats zeros() { return _mm512_setzero_ps(); }
/// 0, 1, 2...
MXLM_AVX512_OP Floats places() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
MXLM_AVX512_OP Floats load(const float* x) { return _mm512_loadu_ps(x); }
/// +0 in the lanes beyond.
MXLM_AVX512_OP Floats load(Left left, const float* x) { return _mm512_maskz_loadu_ps(left, x); }
MXLM_AVX512_OP void store(float* x, Floats v) { _mm512_storeu_ps(x, v); }
MXLM_AVX512_OP void store(Left left, float* x, Floats v) { _mm512_mask_storeu_ps(x, left, v); }

MXLM_AVX512_OP Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
MXLM_AVX512_OP Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
MXLM_AVX512_OP Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
MXLM_AVX512_OP Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
/// a b + c, a b - c and c - a b, rounded once.
MXLM_AVX512_OP Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
MXLM_AVX512_OP Floats fms(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
MXLM_AVX512_OP Floats fnma(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
/// b where either is NaN.
MXLM_AVX512_OP Floats min_of(Floats a, Floats b) { return _mm512_min_ps(a, b); }
MXLM_AVX512_OP Floats max_of(Floats a, Floats b) { return _mm512_max_ps(a, b); }
MXLM_AVX512_OP Floats bit_and(Floats a, Floats b) { return _mm512_and_ps(a, b); }
MXLM_AVX512_OP Floats bit_or(Floats a, Floats b) { return _mm512_or_ps(a, b); }
/// b without the bits of a.
MXLM_AVX512_OP Floats and_not(Floats a, Floats b) { return _mm512_andnot_ps(a, b); }

/// a < b; not a < b (true for NaNs).
MXLM_AVX512_OP Mask less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
MXLM_AVX512_OP Mask not_less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
MXLM_AVX512_OP Mask not_equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
MXLM_AVX512_OP bool any(Mask m) { return m != 0; }
MXLM_AVX512_OP Floats blend(Mask m, Floats yes, Floats no) { return _mm512_mask_mov_ps(no, m, yes); }
/// +0 outside of the mask.
MXLM_AVX512_OP Floats keep(Mask m, Floats x) { return _mm512_maskz_mov_ps(m, x); }
/// Lanes [begin, end); both may lie outside of the vector.
MXLM_AVX512_OP Mask lanes(int64_t begin, int64_t end) {
  return static_cast<Mask>(lanes_left(end) & ~lanes_left(begin));
}

/// Halves, quarters... are added: lane i to lane i + 8, then to i + 4...
MXLM_AVX512_OP float sum_of_lanes(Floats x) { return _mm512_reduce_add_ps(x); }
MXLM_AVX512_OP float max_of_lanes(Floats x) { return _mm512_reduce_max_ps(x); }

/// 2^(j / 16), j being the low four bits of a lane.
MXLM_AVX512_OP Floats sixteenth_power(Floats j) {
  return _mm512_permutexvar_ps(_mm512_castps_si512(j), _mm512_loadu_ps(detail::kSixteenthPowers));
}
/// x 2^floor(n), rounded once; +0 for n = -inf, even of NaN.
MXLM_AVX512_OP Floats times_power(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }
/// x - floor(x), rounded down; anything for -inf.
MXLM_AVX512_OP Floats fraction(Floats x) { return _mm512_reduce_ps(x, 0x09); }

// --- bfloat16. Rounding is by integer arithmetic and not by vcvtneps2bf16, which would flush subnormals.

MXLM_AVX512_OP Floats load_bf16(Left left, const BFloat16* x) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(left, x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/// To nearest even: the upper halves of the result are the bfloat16s, the lower halves are arbitrary. For NaNs whose
/// payload rounding cannot carry into infinity, as those of values computed from bfloat16s alone.
MXLM_AVX512_OP Ints round_bf16_bits(Floats x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i half_down = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  return _mm512_mask_add_epi32(half_down, odd, bits, _mm512_set1_epi32(0x8000));
}
/// The same for any NaN, which stays NaN.
MXLM_AVX512_OP Ints round_bf16(Floats x) {
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(round_bf16_bits(x), nan, _mm512_castps_si512(x), _mm512_set1_epi32(0x400000));
}
/// The float32 value of bits from round_bf16.
MXLM_AVX512_OP Floats truncate_bf16(Ints bits) {
  return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
/// Stores the upper halves.
MXLM_AVX512_OP void store_bf16(Left left, BFloat16* out, Ints bits) {
  _mm256_mask_storeu_epi16(out, left, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

/// Thirty-two values at a time, split into those at even and at odd places, which takes one instruction a half.
struct Pair {
  Floats even, odd;
};
MXLM_AVX512_OP Pair split_bf16(Ints both) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), truncate_bf16(both)};
}
MXLM_AVX512_OP Pair load_pair(Left32 left, const BFloat16* x) { return split_bf16(_mm512_maskz_loadu_epi16(left, x)); }
/// Joins bits from round_bf16 or round_bf16_bits.
MXLM_AVX512_OP void store_pair(Left32 left, BFloat16* out, Ints even, Ints odd) {
  _mm512_mask_storeu_epi16(out, left, _mm512_mask_blend_epi16(0xaaaaaaaaU, _mm512_srli_epi32(even, 16), odd));
}
/// Up to 32 float32s (`left` of them), split the same way, and back.
MXLM_AVX512_OP Pair load_split(int64_t left, const float* x) {
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512 low = load(lanes_left(left), x);
  const __m512 high = load(lanes_left(left - 16), x + 16);
  return {_mm512_permutex2var_ps(low, evens, high),
          _mm512_permutex2var_ps(low, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), high)};
}
MXLM_AVX512_OP void store_split(int64_t left, float* x, const Pair& v) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  store(lanes_left(left), x, _mm512_permutex2var_ps(v.even, first, v.odd));
  store(lanes_left(left - 16), x + 16,
        _mm512_permutex2var_ps(v.even, _mm512_add_epi32(first, _mm512_set1_epi32(8)), v.odd));
}

}  // namespace mxlm::cpu::avx512
