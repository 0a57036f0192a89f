#pragma once

// Quantising a block, exactly. This is the definition that tests compare every faster path with. It uses integer
// arithmetic on the bits of a float32, so that nothing depends on a rounded log2 or on the order of two roundings. Host
// and device share it. Sources: OCP Microscaling Formats (MX) v1.0, sections 5 and 6; microsoft/microxcaling
// mx/mx_ops.py and mx/elemwise_ops.py; pytorch/ao prototype/mx_formats/mx_tensor.py (rules ceil, even, rceil).

#include <cstdint>

#include "mx/format.hpp"

namespace mxlm::mx {

/// The scale exponent of a NaN block: a NaN or an Inf is inside, or the scale is too large for its bits.
constexpr int kNanExponent = 1 << 20;
/// E8M0: 2^(code - 127), and the code of NaN.
constexpr int kScaleBias = 127;
constexpr uint8_t kNanScale = 255;

namespace detail {

constexpr uint32_t kMagnitude = 0x7fffffffU;
constexpr uint32_t kInfinity = 0x7f800000U;
constexpr uint32_t kQuietNan = 0x7fc00000U;

MXLM_HOST_DEVICE constexpr uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
MXLM_HOST_DEVICE constexpr float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

/// 2^n as a double, n in [-1022, 1023].
MXLM_HOST_DEVICE constexpr double power_of_two_double(int n) {
  return __builtin_bit_cast(double, static_cast<uint64_t>(n + 1023) << 52);
}

/// A finite nonzero magnitude as 1.fraction x 2^exponent; subnormals too.
struct Magnitude {
  int exponent;
  uint32_t fraction;  // 23 bits
};

MXLM_HOST_DEVICE constexpr Magnitude normalize(uint32_t magnitude) {
  int bias = 127;
  if (magnitude < (1U << 23)) {  // an integer below 2^24 converts exactly
    magnitude = bits_of(static_cast<float>(magnitude));
    bias = 127 + 149;
  }
  return {static_cast<int>(magnitude >> 23) - bias, magnitude & 0x7fffffU};
}

/// The exponent of 1.fraction x 2^exponent rounded, half up, to `mantissa_bits`.
MXLM_HOST_DEVICE constexpr int rounded_exponent(Magnitude m, int mantissa_bits) {
  return m.exponent + (m.fraction + (1U << (22 - mantissa_bits)) >= (1U << 23) ? 1 : 0);
}

MXLM_HOST_DEVICE constexpr int limit_exponent(int e, int scale_bits) {
  const int limit = max_scale_exponent(scale_bits);
  if (e > limit) return kNanExponent;
  return e < -limit ? -limit : e;
}

}  // namespace detail

/// The scale exponent that a rule gives a block whose largest magnitude has the bits `amax` (a NaN counts as largest);
/// kNanExponent if the block is NaN. For `mse` it is the exponent of `floor`, and block_exponent searches around it.
MXLM_HOST_DEVICE constexpr int shared_exponent(const Format& f, uint32_t amax) {
  if (amax >= detail::kInfinity) return kNanExponent;
  // microxcaling replaces a zero by the smallest normal float, which only packed scales show.
  if (amax == 0) return detail::limit_exponent(-126 - f.element.emax, f.scale_bits);
  const detail::Magnitude m = detail::normalize(amax);
  int e = m.exponent;
  switch (f.rule) {
    case ScaleRule::floor:
    case ScaleRule::mse:
      break;
    case ScaleRule::ceil:
      e += m.fraction != 0 ? 1 : 0;
      break;
    case ScaleRule::even:
      e = detail::rounded_exponent(m, f.element.mantissa_bits);
      break;
    case ScaleRule::ct:
      e = detail::rounded_exponent(m, ct_mantissa_bits(f.element));
      break;
    case ScaleRule::rceil:
      // amax > largest x 2^(e - emax): `max` lies in the binade of emax, so its fraction decides.
      e += m.fraction > (detail::bits_of(f.element.max) & 0x7fffffU) ? 1 : 0;
      break;
  }
  return detail::limit_exponent(e - f.element.emax, f.scale_bits);
}

/// A quantised magnitude: steps x 2^quantum. For floating formats steps <= 2^(mantissa_bits + 1).
struct Steps {
  uint32_t steps;
  int quantum;
};

/// Rounds the finite |x| with bits `magnitude` to the grid of `element` x 2^e and saturates it.
MXLM_HOST_DEVICE constexpr Steps round_to_steps(const ElementFormat& element, Rounding rounding, int e,
                                                uint32_t magnitude) {
  const int mantissa = element.mantissa_bits;
  const int smallest = e + element.emin - mantissa;  // the quantum of subnormals
  if (magnitude == 0) return {0, smallest};
  int quantum = smallest;
  if (element.kind == ElementKind::floating) {
    const int own = detail::normalize(magnitude).exponent - mantissa;
    quantum = own > smallest ? own : smallest;
  }
  // |x| = significand x 2^lsb
  const uint32_t field = magnitude >> 23;
  const uint64_t significand = field == 0 ? magnitude : (magnitude & 0x7fffffU) | 0x800000U;
  const int lsb = (field == 0 ? 1 : static_cast<int>(field)) - 150;
  const int shift = quantum - lsb;
  uint64_t steps = 0;
  if (shift <= 0) {
    steps = -shift > 32 ? UINT64_MAX : significand << -shift;
  } else if (shift <= 24) {
    const uint64_t half = 1ULL << (shift - 1);
    const uint64_t rest = significand & (2 * half - 1);
    steps = significand >> shift;
    if (rounding == Rounding::nearest) {
      steps += rest >= half ? 1 : 0;
    } else if (rounding == Rounding::even) {
      steps += rest > half || (rest == half && (steps & 1U) != 0) ? 1 : 0;
    }
  }
  // `max` = largest x 2^(emax - mantissa): in a higher binade every value saturates, in a lower one no value does.
  const uint32_t largest = ((detail::bits_of(element.max) & 0x7fffffU) | 0x800000U) >> (23 - mantissa);
  const int top = e + element.emax - mantissa;
  if (quantum > top || (quantum == top && steps > largest)) return {largest, top};
  return {static_cast<uint32_t>(steps), quantum};
}

/// The float32 nearest to steps x 2^quantum; it is exact unless the scale exceeds float32's range.
MXLM_HOST_DEVICE constexpr float value_of(Steps s) {
  return static_cast<float>(static_cast<double>(s.steps) * detail::power_of_two_double(s.quantum));
}

/// Quantises and decodes a finite x. Floating formats keep the sign of a zero; integers have one zero.
MXLM_HOST_DEVICE constexpr float quantize_decode(const ElementFormat& element, Rounding rounding, int e, float x) {
  const uint32_t bits = detail::bits_of(x);
  const Steps s = round_to_steps(element, rounding, e, bits & detail::kMagnitude);
  const uint32_t sign = s.steps == 0 && element.kind == ElementKind::integer ? 0 : bits & ~detail::kMagnitude;
  return detail::float_of(detail::bits_of(value_of(s)) | sign);
}

/// The bits of the largest magnitude of a block; the bits of a NaN are the largest.
MXLM_HOST_DEVICE constexpr uint32_t block_max(const float* x, int64_t n) {
  uint32_t amax = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = detail::bits_of(x[i]) & detail::kMagnitude;
    amax = magnitude > amax ? magnitude : amax;
  }
  return amax;
}

/// The scale exponent of a block; kNanExponent if the block is NaN.
MXLM_HOST_DEVICE constexpr int block_exponent(const Format& f, const float* x, int64_t n) {
  const int floor = shared_exponent(f, block_max(x, n));
  if (f.rule != ScaleRule::mse || floor == kNanExponent) return floor;
  const int limit = max_scale_exponent(f.scale_bits);
  int best = floor;
  double least = 0;
  // The order in which ties choose: floor, the larger exponent, the smaller one.
  for (int i = 0; i < 3; ++i) {
    const int e = floor + (i == 2 ? -1 : i);
    if (e > limit || e < -limit) continue;
    double error = 0;
    for (int64_t j = 0; j < n; ++j) {
      const double d = static_cast<double>(x[j]) - static_cast<double>(quantize_decode(f.element, f.rounding, e, x[j]));
      error += d * d;
    }
    if (i == 0 || error < least) {
      least = error;
      best = e;
    }
  }
  return best;
}

/// Quantises a block and decodes it to float32; a NaN block becomes quiet NaNs. `out` may be `x`.
MXLM_HOST_DEVICE constexpr void quantize_decode_block(const Format& f, const float* x, int64_t n, float* out) {
  const int e = block_exponent(f, x, n);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = e == kNanExponent ? detail::float_of(detail::kQuietNan) : quantize_decode(f.element, f.rounding, e, x[i]);
  }
}

// --- codes

/// The code of a finite x under scale exponent e: the element's bits in the low bits of the result.
MXLM_HOST_DEVICE constexpr uint32_t encode(const ElementFormat& element, Rounding rounding, int e, float x) {
  const uint32_t bits = detail::bits_of(x);
  const Steps s = round_to_steps(element, rounding, e, bits & detail::kMagnitude);
  const bool negative = (bits & ~detail::kMagnitude) != 0;
  if (element.kind == ElementKind::integer) {
    return (negative ? 0U - s.steps : s.steps) & ((1U << element.bits()) - 1);
  }
  // The steps of a normal number include its leading one, which counts as the first exponent above the subnormals.
  const int binade = s.quantum - (e + element.emin - element.mantissa_bits);
  const uint32_t magnitude = s.steps == 0 ? 0 : s.steps + (static_cast<uint32_t>(binade) << element.mantissa_bits);
  return magnitude | (negative ? 1U << (element.bits() - 1) : 0U);
}

/// The element of a code, without its scale; codes beyond `max` are the format's Inf (E5M2) or NaN.
MXLM_HOST_DEVICE constexpr float decode(const ElementFormat& element, uint32_t code) {
  const int bits = element.bits();
  const int mantissa = element.mantissa_bits;
  const uint32_t sign_bit = 1U << (bits - 1);
  if (element.kind == ElementKind::integer) {
    const int value = static_cast<int>(code) - ((code & sign_bit) != 0 ? 1 << bits : 0);
    return static_cast<float>(value) * power_of_two(-mantissa);
  }
  const uint32_t magnitude = code & (sign_bit - 1);
  const uint32_t field = magnitude >> mantissa;
  const uint32_t fraction = magnitude & ((1U << mantissa) - 1);
  const Steps s{field == 0 ? fraction : fraction | (1U << mantissa),
                (field == 0 ? 0 : static_cast<int>(field) - 1) + element.emin - mantissa};
  uint32_t value = detail::bits_of(value_of(s));
  if (detail::float_of(value) > element.max) {
    value = fraction == 0 && element.emax < (1 << (element.exponent_bits - 1)) ? detail::kInfinity : detail::kQuietNan;
  }
  return detail::float_of(value | ((code & sign_bit) != 0 ? ~detail::kMagnitude : 0U));
}

/// element x 2^e in float32; it is rounded only outside float32's range.
MXLM_HOST_DEVICE constexpr float scale_by(float element, int e) {
  return static_cast<float>(static_cast<double>(element) * detail::power_of_two_double(e));
}

/// The E8M0 code of a scale exponent (scale bits of at most 8).
MXLM_HOST_DEVICE constexpr uint8_t scale_code(int e) {
  return e == kNanExponent ? kNanScale : static_cast<uint8_t>(e + kScaleBias);
}

// Packing: codes follow one another, low bits first, and each row is padded to a whole byte. So an 8-bit format takes a
// byte per code, FP4 stores two codes in a byte with the even element low, and FP6 four codes in three bytes.

MXLM_HOST_DEVICE constexpr int64_t packed_bytes(const ElementFormat& element, int64_t n) {
  return (n * element.bits() + 7) / 8;
}

MXLM_HOST_DEVICE constexpr int64_t block_count(const Format& f, int64_t n) {
  if (f.block_size == 0) return n > 0 ? 1 : 0;
  return (n + f.block_size - 1) / f.block_size;
}

/// ORs a code of `bits` <= 16 bits into place i of zeroed bytes.
MXLM_HOST_DEVICE constexpr void put_code(uint8_t* packed, int bits, int64_t i, uint32_t code) {
  int64_t bit = i * bits;
  for (int left = bits; left > 0;) {
    const int offset = static_cast<int>(bit & 7);
    const int take = left < 8 - offset ? left : 8 - offset;
    packed[bit >> 3] = static_cast<uint8_t>(packed[bit >> 3] | ((code & ((1U << take) - 1)) << offset));
    code >>= take;
    bit += take;
    left -= take;
  }
}

MXLM_HOST_DEVICE constexpr uint32_t get_code(const uint8_t* packed, int bits, int64_t i) {
  int64_t bit = i * bits;
  uint32_t code = 0;
  for (int have = 0; have < bits;) {
    const int offset = static_cast<int>(bit & 7);
    const int take = bits - have < 8 - offset ? bits - have : 8 - offset;
    code |= ((static_cast<uint32_t>(packed[bit >> 3]) >> offset) & ((1U << take) - 1)) << have;
    bit += take;
    have += take;
  }
  return code;
}

}  // namespace mxlm::mx
