#pragma once

// The reference formats that Microscaling is compared with, exactly. This is the definition that tests compare every
// faster path with. A value of a format with row scales is stored as (a number that fits a bfloat16) x (a float32 scale
// of its row). All arithmetic is float32, and each operation rounds once. Sources: fp8 by tensor and row, pytorch/ao
// quant_primitives.py (_choose_scale_float8, _quantize_affine_float8, on float32 values); nvfp4, pytorch/ao
// prototype/mx_formats nvfp4_tensor.py (nvfp4_quantize, per_tensor_amax_to_scale); int8, Dettmers et al. 2022
// (LLM.int8) as bitsandbytes computes it (int8_vectorwise_quant); own exponents, microxcaling mx_ops.py
// (shared_exp_method none).
//
// Where these sources divide zero by zero and get NaN, a tensor or row of zeros stays zero here. If values that share a
// float32 scale include a NaN or an Inf, all of them become NaN: the scale is NaN and the values are zero.

#include <cstdint>

#include "mx/quantize.hpp"

namespace mxlm::mx {

/// LLM.int8 computes a column of a window in 16 bits if any of its magnitudes reaches this.
constexpr float kOutlierThreshold = 6.0F;

/// True for an x that LLM.int8 treats as an outlier. A NaN is not an outlier: it makes its row NaN.
MXLM_HOST_DEVICE constexpr bool is_outlier(float x) { return x >= kOutlierThreshold || x <= -kOutlierThreshold; }

/// Quantises and decodes a value of a format without a scale. It saturates, except that bfloat16 has an Inf; a NaN
/// stays a NaN.
MXLM_HOST_DEVICE constexpr float cast_decode(const Format& f, float x) {
  const uint32_t bits = detail::bits_of(x);
  const uint32_t magnitude = bits & detail::kMagnitude;
  if (magnitude > detail::kInfinity) return detail::float_of(detail::kQuietNan);
  const bool has_infinity = f.element.exponent_bits == 8;
  if (magnitude == detail::kInfinity && has_infinity) return x;
  if (magnitude == detail::kInfinity) return detail::float_of(detail::bits_of(f.element.max) | (bits & 0x80000000U));
  if (has_infinity && magnitude > detail::bits_of(f.element.max)) {
    // From half a step beyond the largest number on, a rounded value is Inf; rounding toward zero never gives Inf.
    const uint32_t half = detail::bits_of(f.element.max) + (1U << (22 - f.element.mantissa_bits));
    const bool to_infinity = f.rounding != Rounding::toward_zero && magnitude >= half;
    return detail::float_of((to_infinity ? detail::kInfinity : detail::bits_of(f.element.max)) | (bits & 0x80000000U));
  }
  return quantize_decode(f.element, f.rounding, 0, x);
}

/// The float32 scale of a row or tensor (has_row_scales) whose largest magnitude has the bits `amax` (for llm_int8: the
/// largest magnitude without outliers); NaN if `amax` is NaN or Inf.
MXLM_HOST_DEVICE constexpr float outer_scale(const Format& f, uint32_t amax) {
  if (amax >= detail::kInfinity) return detail::float_of(detail::kQuietNan);
  const float largest = detail::float_of(amax);
  if (f.scaling == Scaling::nvfp4) return largest / (448.0F * f.element.max);
  if (f.element.kind == ElementKind::integer) return largest / static_cast<float>((1 << (f.element.bits() - 1)) - 1);
  return largest / f.element.max;
}

/// The E4M3 scale of an nvfp4 block whose largest magnitude has the bits `amax`, under the tensor's scale (a finite
/// positive number). It is at least E4M3's smallest normal number.
MXLM_HOST_DEVICE constexpr float nvfp4_block_scale(const Format& f, float outer, uint32_t amax) {
  constexpr float smallest = 0x1p-6F;
  constexpr ElementFormat e4m3 = detail::kE4M3;
  const float scale = detail::float_of(amax) / f.element.max / outer;
  if (!(scale > smallest)) return smallest;
  return scale >= e4m3.max ? e4m3.max : quantize_decode(e4m3, Rounding::even, 0, scale);
}

/// True if all values under this scale are zero: the scale is zero, or it is NaN and makes the row or tensor NaN.
MXLM_HOST_DEVICE constexpr bool degenerate_scale(float outer) {
  return !(outer > 0) || detail::bits_of(outer) >= detail::kInfinity;
}

/// A value of a row under its float32 scale (formats with row scales except nvfp4): x ~ result x outer, where the
/// result is exactly a bfloat16. Integers are whole numbers here. Needs !degenerate_scale(outer); `amax` as for
/// outer_scale.
MXLM_HOST_DEVICE constexpr float scaled_decode(const Format& f, float outer, uint32_t amax, float x) {
  if (f.element.kind == ElementKind::integer) {
    const int fraction = f.element.mantissa_bits;
    const auto largest = static_cast<float>((1 << (f.element.bits() - 1)) - 1);
    const float inverse = 1.0F / detail::float_of(amax) * largest;  // in this order: torch computes 127 / x
    if (!(inverse <= 0x1.fffffep127F)) return 0;                    // amax is so small that the quotient is Inf
    return quantize_decode(f.element, Rounding::even, fraction, x * inverse);
  }
  const float v = x / outer;
  const uint32_t bits = detail::bits_of(v);
  if ((bits & detail::kMagnitude) >= detail::kInfinity) {  // the quotient overflows
    return detail::float_of(detail::bits_of(f.element.max) | (bits & 0x80000000U));
  }
  return quantize_decode(f.element, Rounding::even, 0, v);
}

/// A value of an nvfp4 block with scale `block`: x ~ result x outer, result = element x block.
MXLM_HOST_DEVICE constexpr float nvfp4_element(const Format& f, float outer, float block, float x) {
  if (x == 0) return x;
  float v = x * (1.0F / outer / block);
  if (v > f.element.max) v = f.element.max;
  if (v < -f.element.max) v = -f.element.max;
  return quantize_decode(f.element, Rounding::even, 0, v);
}

/// Quantises a row of a format with row scales under the scale of the row or tensor, without multiplying by the scale:
/// x[i] ~ out[i] x outer, and every out[i] is a bfloat16. `amax` holds the bits of the largest magnitude that `outer`
/// was made of. `outlier`, if not null, has n flags of columns to leave out (zeros). `out` may be `x`.
MXLM_HOST_DEVICE constexpr void quantize_scaled_row(const Format& f, float outer, uint32_t amax, const uint8_t* outlier,
                                                    const float* x, int64_t n, float* out) {
  if (degenerate_scale(outer)) {
    for (int64_t i = 0; i < n; ++i) out[i] = 0;
    return;
  }
  if (f.scaling == Scaling::nvfp4) {
    for (int64_t start = 0; start < n; start += f.block_size) {
      const int64_t end = start + f.block_size < n ? start + f.block_size : n;
      const float block = nvfp4_block_scale(f, outer, block_max(x + start, end - start));
      for (int64_t i = start; i < end; ++i) out[i] = nvfp4_element(f, outer, block, x[i]) * block;
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    out[i] = outlier != nullptr && outlier[i] != 0 ? 0 : scaled_decode(f, outer, amax, x[i]);
  }
}

}  // namespace mxlm::mx
