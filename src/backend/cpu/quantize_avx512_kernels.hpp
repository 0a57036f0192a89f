#pragma once

// The AVX-512 kernels that quantising (quantize_avx512.cpp) and encoding (codes_avx512.cpp) share.

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "mx/quantize.hpp"
#include "tensor/dtype.hpp"

// GCC 12 warns of its own headers: their "undefined" vectors are initialised with themselves.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#define MXLM_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2")))
#define MXLM_AVX512_INLINE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2"), always_inline)) inline

namespace mxlm::cpu::avx512 {

using mx::ElementKind;
using mx::Format;
using mx::Rounding;

constexpr int kGroup = 16;             // blocks whose scales are worked out together
constexpr int kHighestExponent = 100;  // of a block maximum, so that 2^23 quanta are finite
constexpr int kMagnitude = 0x7fffffff;
constexpr int kSign = static_cast<int>(0x80000000U);
constexpr int kExponent = 0x7f800000;

/// A block format as constants of the vector code.
struct Plan {
  int carry;  // added to the bits of a block maximum: what a rule rounds up carries into the exponent
  int emax, emin, mantissa;
  int limit;             // largest scale exponent
  int quantum_to_magic;  // added to the bits of 2^(quantum + mantissa bits): the rounding constant
  int largest;           // bits of the largest element
  int64_t block;
};

inline Plan make_plan(const Format& f, int64_t n) {
  const int mantissa = f.element.mantissa_bits;
  Plan p{};
  p.largest = static_cast<int>(mx::detail::bits_of(f.element.max));
  switch (f.rule) {
    case mx::ScaleRule::floor:
    case mx::ScaleRule::mse:
      p.carry = 0;
      break;
    case mx::ScaleRule::ceil:
      p.carry = 0x7fffff;
      break;
    case mx::ScaleRule::even:
      p.carry = 1 << (22 - mantissa);
      break;
    case mx::ScaleRule::ct:
      p.carry = 1 << (22 - mx::ct_mantissa_bits(f.element));
      break;
    case mx::ScaleRule::rceil:
      p.carry = 0x7fffff - (p.largest & 0x7fffff);
      break;
  }
  p.emax = f.element.emax;
  p.emin = f.element.emin;
  p.mantissa = mantissa;
  p.limit = mx::max_scale_exponent(f.scale_bits);
  p.quantum_to_magic = f.rounding == Rounding::nearest ? (22 - mantissa) << 23 : ((23 - mantissa) << 23) + 0x400000;
  p.block = f.block_size == 0 ? n : f.block_size;
  return p;
}

MXLM_AVX512_INLINE __mmask16 tail16(int64_t left) { return static_cast<__mmask16>((1U << left) - 1); }
MXLM_AVX512_INLINE __mmask32 tail32(int64_t left) { return static_cast<__mmask32>((1ULL << left) - 1); }

/// Maxima of magnitudes of a block, to be reduced over lanes (float: 32-bit lanes; bfloat16: 16-bit lanes).
template <int64_t kLength>
MXLM_AVX512_INLINE __m512i partial_max(const float* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(kMagnitude);
  if constexpr (kLength == 32) {
    // The next group, which a result written past the caches would otherwise wait for.
    const char* ahead = reinterpret_cast<const char*>(x) + sizeof(float) * 32 * kGroup;
    _mm_prefetch(ahead, _MM_HINT_T0);
    _mm_prefetch(ahead + 64, _MM_HINT_T0);
    return _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x), magnitude),
                            _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude));
  }
  __m512i best = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) best = _mm512_max_epu32(best, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
  if (i < n) {
    best = _mm512_max_epu32(best, _mm512_and_si512(_mm512_maskz_loadu_epi32(tail16(n - i), x + i), magnitude));
  }
  return best;
}

template <int64_t kLength>
MXLM_AVX512_INLINE __m512i partial_max(const BFloat16* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  if constexpr (kLength == 32) return _mm512_and_si512(_mm512_loadu_si512(x), magnitude);
  __m512i best = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) best = _mm512_max_epu16(best, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
  if (i < n) {
    best = _mm512_max_epu16(best, _mm512_and_si512(_mm512_maskz_loadu_epi16(tail32(n - i), x + i), magnitude));
  }
  return best;
}

/// A block's constants, spread.
struct Constants {
  __m512i smallest;
  __m512 limit;
  __m512i to_magic;
};

template <ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE __m512 round16(__m512 x, const Constants& k) {
  const __m512i bits = _mm512_castps_si512(x);
  __m512i magic = k.smallest;
  if constexpr (kKind == ElementKind::floating) {
    const __m512i own = _mm512_and_si512(bits, _mm512_set1_epi32(kExponent));
    magic = _mm512_add_epi32(_mm512_max_epu32(own, k.smallest), k.to_magic);
  }
  const __m512 c = _mm512_castsi512_ps(magic);
  __m512 r;
  if constexpr (kRounding == Rounding::even) {
    r = _mm512_sub_ps(_mm512_add_ps(x, c), c);
    r = _mm512_range_ps(r, k.limit, 0x2);  // the smaller magnitude, the sign of r
    if constexpr (kKind == ElementKind::integer) return r;
  } else {
    const __m512 a = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(kMagnitude)));
    constexpr int kTruncate = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    if constexpr (kRounding == Rounding::toward_zero) {
      r = _mm512_sub_ps(_mm512_add_round_ps(a, c, kTruncate), c);
    } else {
      // c is 2^22 quanta here: the sum counts half quanta. Half a quantum more, then the odd half dropped.
      const __m512i one = _mm512_set1_epi32(1);
      const __m512 c_and_half = _mm512_castsi512_ps(_mm512_or_si512(magic, one));
      const __m512i sum = _mm512_castps_si512(_mm512_add_round_ps(a, c_and_half, kTruncate));
      r = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_andnot_si512(one, sum)), c);
    }
    r = _mm512_min_ps(r, k.limit);
  }
  // | (x & sign)
  r = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(r), bits, _mm512_set1_epi32(kSign), 0xf8));
  if constexpr (kKind == ElementKind::integer) r = _mm512_add_ps(r, _mm512_setzero_ps());  // -0 becomes +0
  return r;
}

/// True if the constants of a block with this scale exponent and these bits of its maximum are normal numbers, one
/// scale lower included (rule mse looks there).
inline bool fits(const Plan& p, int e, uint32_t amax) {
  return amax >= (1U << 23) && amax < static_cast<uint32_t>(kHighestExponent + 127) << 23 && e - 1 + p.emin >= -126;
}

template <ElementKind kKind>
MXLM_AVX512_INLINE Constants make_constants(const Plan& p, int e) {
  int smallest = (e + p.emin + 127) << 23;
  if (kKind == ElementKind::integer) smallest += p.quantum_to_magic;
  return {_mm512_set1_epi32(smallest), _mm512_castsi512_ps(_mm512_set1_epi32(p.largest + e * (1 << 23))),
          _mm512_set1_epi32(p.quantum_to_magic)};
}

/// Rule mse: mx::block_exponent for a block whose `floor` exponent fits.
template <ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE int least_error_exponent(const Plan& p, int floor, const float* x, int64_t n) {
  constexpr int kCandidates = 3;
  constexpr int64_t kPart = 64;
  const int e[kCandidates] = {floor, floor + 1, floor - 1};  // in the order that ties prefer
  Constants constants[kCandidates];
  for (int c = 0; c < kCandidates; ++c) constants[c] = make_constants<kKind>(p, e[c]);
  double error[kCandidates] = {};
  for (int64_t at = 0; at < n; at += kPart) {
    const int64_t length = n - at < kPart ? n - at : kPart;
    alignas(64) float rounded[kCandidates][kPart];
    for (int64_t i = 0; i < length; i += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(tail16(length - i < 16 ? length - i : 16), x + at + i);
      for (int c = 0; c < kCandidates; ++c) {
        _mm512_store_ps(rounded[c] + i, round16<kKind, kRounding>(v, constants[c]));
      }
    }
    // One sum after the other's term: the order is part of the definition.
    for (int64_t i = 0; i < length; ++i) {
      for (int c = 0; c < kCandidates; ++c) {
        const double d = static_cast<double>(x[at + i]) - static_cast<double>(rounded[c][i]);
        error[c] += d * d;
      }
    }
  }
  int best = 0;
  for (int c = 1; c < kCandidates; ++c) {
    if (e[c] <= p.limit && e[c] >= -p.limit && error[c] < error[best]) best = c;
  }
  return e[best];
}

inline float widen_one(float x) { return x; }
inline float widen_one(BFloat16 x) { return to_float(x); }
inline void store_one(float x, float& out) { out = x; }
inline void store_one(float x, BFloat16& out) { out = to_bfloat16(x); }

}  // namespace mxlm::cpu::avx512
