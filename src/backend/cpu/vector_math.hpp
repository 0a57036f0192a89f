#pragma once

// Exponentials for softmax, log-sum-exp and activation functions: a portable form of each (free of branches, so that
// compilers vectorise loops over it) and an AVX-512 form of 16 lanes.
//
//   exp         within 1 ulp (AVX-512) or 2 ulp (portable) of e^x, subnormal results included; e^-inf = +0, +inf and
//               everything past the range = +inf, NaN = NaN, e^0 = 1 exactly
//   exp2_sum    2^y for sums of terms y <= 0 (a log-sum-exp or softmax in units of log2, whose maximum has been
//               subtracted): within 1 ulp; y below about -150 gives 0, -inf and NaN give NaN
//   tanh        within 2 ulp; NaN = NaN
//   erfc        for z >= 0, within 8 + z^2 ulp (the argument of e^(-z^2) is rounded)
//   sigmoid     1 / (1 + e^-x) within 3 ulp
//   silu        x / (1 + e^-x) within 4 ulp down to -87; like that expression in float, -0 once e^-x passes the range
//
// The portable and the AVX-512 forms differ in the last bits. AVX-512 functions are `static inline` with the
// instruction set as an attribute: call them from functions that have at least MXLM_TARGET_AVX512.

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

namespace detail {

/// 2^(j / 16), to be picked by the low four bits of an index.
MXLM_TARGET_AVX512 static inline __m512 sixteenth_powers(__m512i index) {
  const __m512 table =
      _mm512_setr_ps(0x1p+0F, 0x1.0b5586p+0F, 0x1.172b84p+0F, 0x1.2387a6p+0F, 0x1.306fe0p+0F, 0x1.3dea64p+0F,
                     0x1.4bfdaep+0F, 0x1.5ab07ep+0F, 0x1.6a09e6p+0F, 0x1.7a1148p+0F, 0x1.8ace54p+0F, 0x1.9c4918p+0F,
                     0x1.ae89fap+0F, 0x1.c199bep+0F, 0x1.d5818ep+0F, 0x1.ea4afap+0F);
  return _mm512_permutexvar_ps(index, table);
}

// Adding it rounds to a multiple of 1/16, whose fraction is then in the low four bits.
constexpr float kSixteenthsMagic = 0x1.8p19F;

/// e^r - 1 for |r| <= ln 2 / 32, within 3e-9 absolutely: Taylor, the fourth power folded into the second.
MXLM_TARGET_AVX512 static inline __m512 expm1_small(__m512 r) {
  const __m512 c = _mm512_fmadd_ps(r, _mm512_set1_ps(1.0F / 6), _mm512_set1_ps(0.5F + 1.955e-5F));
  return _mm512_fmadd_ps(_mm512_mul_ps(r, r), c, r);
}

/// e^x in the lanes of `keep` and +0 in the others; the kept x are in (-110, 100) or NaN.
MXLM_TARGET_AVX512 static inline __m512 exp_in_range(__mmask16 keep, __m512 x) {
  const __m512 magic = _mm512_set1_ps(kSixteenthsMagic);
  const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(kLog2e), magic);
  const __m512 n = _mm512_sub_ps(shifted, magic);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2Low), r);
  const __m512 t = sixteenth_powers(_mm512_castps_si512(shifted));
  return _mm512_maskz_scalef_ps(keep, _mm512_fmadd_ps(t, expm1_small(r), t), n);  // scalef takes the floor of n
}

}  // namespace detail

/// e^x in 16 lanes.
MXLM_TARGET_AVX512 static inline __m512 exp_avx512(__m512 x) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(detail::kExpLowest), _CMP_NLT_UQ);
  return detail::exp_in_range(keep, _mm512_min_ps(_mm512_set1_ps(detail::kExpHighest), x));  // min passes a NaN x on
}

/// e^x in 16 lanes for x <= 0 or NaN: exp_avx512 without the care for overflow.
MXLM_TARGET_AVX512 static inline __m512 exp_nonpositive_avx512(__m512 x) {
  return detail::exp_in_range(_mm512_cmp_ps_mask(x, _mm512_set1_ps(detail::kExpLowest), _CMP_NLT_UQ), x);
}

/// 2^y in 16 lanes for y <= 0.
MXLM_TARGET_AVX512 static inline __m512 exp2_sum_avx512(__m512 y) {
  const __m512 magic = _mm512_set1_ps(detail::kSixteenthsMagic);
  const __m512 shifted = _mm512_add_ps(y, magic);
  const __m512 n = _mm512_sub_ps(shifted, magic);
  const __m512 r = _mm512_sub_ps(y, n);
  const __m512 t = detail::sixteenth_powers(_mm512_castps_si512(shifted));
  // 2^r - 1 = r (ln2 + r (ln2^2/2 + r ln2^3/6)), |r| <= 1/32, the fourth power folded into the second
  __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(0x1.c6b08ep-5F), _mm512_set1_ps(0.2402265070F + 9.3924e-6F));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.62e430p-1F));
  q = _mm512_mul_ps(q, r);
  return _mm512_scalef_ps(_mm512_fmadd_ps(t, q, t), n);
}

/// x / (1 + e^-x) in 16 lanes.
MXLM_TARGET_AVX512 static inline __m512 silu_avx512(__m512 x) {
  // e = e^-|x| does not overflow: x / (1 + e) or x * e / (1 + e). The divider works beside the other units, so that a
  // division costs less than an estimate and its refinement.
  const __m512 minus_abs = _mm512_or_ps(x, _mm512_set1_ps(-0.0F));
  const __mmask16 keep = _mm512_cmp_ps_mask(minus_abs, _mm512_set1_ps(-detail::kExpOverflow), _CMP_NLT_UQ);
  const __m512 e = detail::exp_in_range(keep, minus_abs);
  const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_div_ps(_mm512_mask_mul_ps(x, negative, x, e), _mm512_add_ps(e, _mm512_set1_ps(1.0F)));
}

/// 1 / (1 + e^-x) in 16 lanes.
MXLM_TARGET_AVX512 static inline __m512 sigmoid_avx512(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0F);
  return _mm512_div_ps(one, _mm512_add_ps(one, exp_avx512(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

/// erfc z in 16 lanes for z >= 0.
MXLM_TARGET_AVX512 static inline __m512 erfc_avx512(__m512 z) {
  const __m512 one = _mm512_set1_ps(1.0F);
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(detail::kErfcStep), z, one));
  __m512 p = _mm512_set1_ps(detail::kErfc[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(detail::kErfc[i]));
  const __m512 minus_square = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z));
  return _mm512_mul_ps(_mm512_mul_ps(p, t), exp_nonpositive_avx512(minus_square));
}

/// tanh x in 16 lanes.
MXLM_TARGET_AVX512 static inline __m512 tanh_avx512(__m512 x) {
  const __m512 sign = _mm512_set1_ps(-0.0F);
  const __m512 one = _mm512_set1_ps(1.0F);
  const __m512 z = _mm512_mul_ps(x, x);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(detail::kTanh4), z, _mm512_set1_ps(detail::kTanh3));
  p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(detail::kTanh2));
  p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(detail::kTanh1));
  p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(detail::kTanh0));
  const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, z), x, x);
  // 1 - 2 e / (1 + e) with e = e^-2|x|, which does not overflow
  const __m512 e = exp_nonpositive_avx512(_mm512_mul_ps(_mm512_or_ps(x, sign), _mm512_set1_ps(2.0F)));
  const __m512 ratio = _mm512_div_ps(_mm512_add_ps(e, e), _mm512_add_ps(e, one));
  const __m512 large = _mm512_or_ps(_mm512_sub_ps(one, ratio), _mm512_and_ps(x, sign));
  const __mmask16 is_small =
      _mm512_cmp_ps_mask(_mm512_andnot_ps(sign, x), _mm512_set1_ps(detail::kTanhSmall), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(large, is_small, small);
}

}  // namespace mxlm::cpu
