#pragma once

// Sixteen bfloat16 values in AVX-512 registers, computed with as float32. Rounding is by integer arithmetic and not by
// vcvtneps2bf16, which would flush subnormals.

#include "backend/cpu/vector_math.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

MXLM_TARGET_AVX512 static inline __m512 load_bf16(__mmask16 mask, const BFloat16* x) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/// To nearest even, NaN stays NaN: the upper halves of the result are the bfloat16s, the lower halves are arbitrary.
MXLM_TARGET_AVX512 static inline __m512i round_bf16_bits(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i half_down = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  return _mm512_mask_add_epi32(half_down, odd, bits, _mm512_set1_epi32(0x8000));
}
MXLM_TARGET_AVX512 static inline __m512i round_bf16(__m512 x) {
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(round_bf16_bits(x), nan, _mm512_castps_si512(x), _mm512_set1_epi32(0x400000));
}

/// The float32 value of bits from round_bf16.
MXLM_TARGET_AVX512 static inline __m512 truncate_bf16(__m512i bits) {
  return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

/// round_bf16 as float32, for values computed from bfloat16s alone: their NaNs have payloads that rounding cannot
/// carry into infinity, so that they need no care.
MXLM_TARGET_AVX512 static inline __m512 round_bf16_clean(__m512 x) { return truncate_bf16(round_bf16_bits(x)); }

/// Stores the upper halves.
MXLM_TARGET_AVX512 static inline void store_bf16(__mmask16 mask, void* out, __m512i bits) {
  _mm256_mask_storeu_epi16(out, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}
// Thirty-two values at a time, split into those at even and at odd places, which takes one instruction a half.
struct Bf16Pair {
  __m512 even, odd;
};

MXLM_TARGET_AVX512 static inline Bf16Pair split_bf16(__m512i x) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), truncate_bf16(x)};
}
MXLM_TARGET_AVX512 static inline Bf16Pair load_bf16_pair(__mmask32 mask, const BFloat16* x) {
  return split_bf16(_mm512_maskz_loadu_epi16(mask, x));
}
/// Joins bits from round_bf16 or round_bf16_bits.
MXLM_TARGET_AVX512 static inline __m512i join_bf16(__m512i even, __m512i odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaaU, _mm512_srli_epi32(even, 16), odd);
}
MXLM_TARGET_AVX512 static inline __mmask32 lanes_left_32(int64_t left) {
  return static_cast<__mmask32>(left >= 32 ? ~0U : (1U << left) - 1U);
}

}  // namespace mxlm::cpu
