#pragma once

// Exponentials for softmax, log-sum-exp and activation functions: the portable form of each (free of branches, so that
// compilers vectorise loops over it), and what it shares with the form of 16 lanes in simd/math.inl.
//
//   exp         within 1 ulp (vectors) or 2 ulp (portable) of e^x, subnormal results included; e^-inf = +0, +inf and
//               everything past the range = +inf, NaN = NaN, e^0 = 1 exactly
//   exp2_sum    2^y for sums of terms y <= 0 (a log-sum-exp or softmax in units of log2, whose maximum has been
//               subtracted): within 1 ulp; y below about -150 gives 0, NaN gives NaN; -inf gives 0 in the vector form
//               and NaN in the portable one
//   tanh        within 2 ulp; NaN = NaN
//   erfc        for z >= 0, within 8 + z^2 ulp (the argument of e^(-z^2) is rounded)
//   sigmoid     1 / (1 + e^-x) within 3 ulp
//   silu        x / (1 + e^-x) within 4 ulp down to -87; like that expression in float, -0 once e^-x passes the range
//
// The portable and the vector forms (simd/math.inl) differ in the last bits.

#include <bit>
#include <cstdint>

// GCC 12 takes the undefined operands of its own intrinsics for a fault of whoever inlines them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#define MXLM_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

namespace mxlm::cpu {

/// log2(e) in float32: a softmax in units of log2 multiplies by this very value everywhere, which makes it the softmax
/// at a temperature of 1 - 1.4e-8, the same for all terms.
constexpr float kLog2e = 0x1.715476p+0F;

namespace detail {

constexpr float kLn2 = 0x1.62e43p-1F;  // ln 2 = kLn2 + kLn2Low
constexpr float kLn2Low = -0x1.05c61p-29F;
constexpr float kExpLowest = -104.0F;           // e^x rounds to 0 here and below
constexpr float kExpHighest = 89.0F;            // e^x overflows here and above
constexpr float kExpOverflow = 0x1.62e42ep+6F;  // the largest x whose e^x is finite
// Adding it rounds to a multiple of 1/16, whose fraction is then in the low four bits.
constexpr float kSixteenthsMagic = 0x1.8p19F;
/// 2^(j / 16).
constexpr float kSixteenthPowers[16] = {0x1p+0F,        0x1.0b5586p+0F, 0x1.172b84p+0F, 0x1.2387a6p+0F,
                                        0x1.306fe0p+0F, 0x1.3dea64p+0F, 0x1.4bfdaep+0F, 0x1.5ab07ep+0F,
                                        0x1.6a09e6p+0F, 0x1.7a1148p+0F, 0x1.8ace54p+0F, 0x1.9c4918p+0F,
                                        0x1.ae89fap+0F, 0x1.c199bep+0F, 0x1.d5818ep+0F, 0x1.ea4afap+0F};

/// 2^n for n in [-150, 130], as the product of two normal powers, applied to p.
static inline float scale_by_power(float p, int32_t n) {
  const int32_t half = n >> 1;
  return p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((n - half + 127) << 23);
}

}  // namespace detail

/// e^x.
static inline float exp_portable(float x) {
  constexpr float kMagic = 0x1.8p23F;  // adding it rounds to an integer, which is then in the low bits
  // ln 2 in two parts, the first of so few bits that n times it is exact.
  constexpr float kHigh = 0x1.63p-1F;
  constexpr float kLow = -0x1.bd0106p-13F;
  float c = x < detail::kExpLowest ? detail::kExpLowest : x;
  c = c > detail::kExpHighest ? detail::kExpHighest : c;
  const float shifted = c * kLog2e + kMagic;
  const float n = shifted - kMagic;
  const float r = (c - n * kHigh) - n * kLow;
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = (p * r * r + r) + 1.0F;
  // A NaN's bits give a power of no meaning but in range, and the product is NaN all the same.
  int32_t power = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kMagic);
  power = power < -151 ? -151 : power;
  power = power > 130 ? 130 : power;
  return detail::scale_by_power(p, power);
}

/// 2^y for y <= 0.
static inline float exp2_sum_portable(float y) {
  constexpr float kMagic = 0x1.8p23F;
  const float c = y < -151.0F ? -151.0F : y;
  const float shifted = c + kMagic;
  const float r = (c - (shifted - kMagic)) * detail::kLn2;
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = (p * r * r + r) + 1.0F;
  int32_t power = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kMagic);
  power = power < -151 ? -151 : power;
  power = power > 130 ? 130 : power;
  return detail::scale_by_power(p, power);
}

static inline float silu_portable(float x) { return x / (1.0F + exp_portable(-x)); }

static inline float sigmoid_portable(float x) { return 1.0F / (1.0F + exp_portable(-x)); }

namespace detail {

// tanh x = x + x^3 * P(x^2) for |x| < kTanhSmall, fitted to about half an ulp.
constexpr float kTanhSmall = 0.55F;
constexpr float kTanh4 = -0x1.b191dp-8F;
constexpr float kTanh3 = 0x1.5d301cp-6F;
constexpr float kTanh2 = -0x1.b9a19ap-5F;
constexpr float kTanh1 = 0x1.110ffp-3F;
constexpr float kTanh0 = -0x1.555554p-2F;

// erfc z = e^(-z^2) t P(t) with t = 1 / (1 + kErfcStep z) for z in [0, 10], fitted to less than an ulp; highest power
// first.
constexpr float kErfcStep = 0.5F;
constexpr float kErfc[] = {-0x1.e3eac4p-5F, 0x1.236b46p-2F, -0x1.f2ebd4p-2F, 0x1.1cc5a4p-2F, -0x1.b4902p-6F,
                           0x1.9f1e7cp-3F,  0x1.f1df66p-3F, 0x1.21270ep-2F,  0x1.20db42p-2F};

}  // namespace detail

/// erfc z for z >= 0 (0 past 10).
static inline float erfc_portable(float z) {
  const float t = 1.0F / (1.0F + detail::kErfcStep * z);
  float p = detail::kErfc[0];
  for (int i = 1; i < 9; ++i) p = p * t + detail::kErfc[i];
  return p * t * exp_portable(-(z * z));
}

static inline float tanh_portable(float x) {
  const float z = x * x;
  const float p =
      (((detail::kTanh4 * z + detail::kTanh3) * z + detail::kTanh2) * z + detail::kTanh1) * z + detail::kTanh0;
  const float small = p * z * x + x;
  const float a = x < 0.0F ? -x : x;
  const float large = 1.0F - 2.0F / (exp_portable(2.0F * a) + 1.0F);
  const float magnitude_large = x < 0.0F ? -large : large;
  return a < detail::kTanhSmall ? small : magnitude_large;
}

}  // namespace mxlm::cpu
