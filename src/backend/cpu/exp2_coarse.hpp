#pragma once

// The exponential of probabilities that are rounded to bfloat16 at once.

#include "backend/cpu/vector_math.hpp"

namespace mxlm::cpu {

/// 2^x in 16 lanes, 0 for -inf, within 9e-5 of its value: a cubic on [0, 1) that minimises the largest relative error
/// and is exactly 1 at 0. Rounding to bfloat16 adds up to 4e-3.
MXLM_TARGET_AVX512 static inline __m512 exp2_coarse_avx512(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
  __m512 y = _mm512_fmadd_ps(f, _mm512_set1_ps(0x1.3baaa6p-4F), _mm512_set1_ps(0x1.d2378ap-3F));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0x1.63e658p-1F));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(y, x);  // y * 2^floor(x)
}

}  // namespace mxlm::cpu
