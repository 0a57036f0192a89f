#include "backend/cpu/quantize_avx512.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "backend/cpu/quantize_avx512_kernels.hpp"
#include "backend/cpu/quantize_block.hpp"

// How it works. Values are rounded where they are, never divided by the scale: a value's quantum is
// 2^(max(exponent(x), e + emin) - mantissa bits), and adding and subtracting 1.5 x 2^23 quanta rounds to it, once, to
// nearest even (other roundings: the same on |x| with the sum rounded toward zero). Scales are worked out for 16 blocks
// at a time, one a lane, so that the horizontal maxima and the exponent arithmetic are shared.
//
// That needs every constant to be a normal float32. Blocks at the ends of the range (and NaN blocks) are left to the
// exact portable code; `slow` below marks them.

namespace mxlm::cpu::avx512 {
namespace {

/// What the blocks of a group are rounded with.
struct alignas(64) Group {
  int smallest[kGroup];  // bits of 2^(e + emin); of the rounding constant for integers
  float limit[kGroup];   // largest magnitude
  uint32_t slow;         // blocks for the portable path
};

template <typename In>
MXLM_AVX512_INLINE __m512i larger(__m512i a, __m512i b) {
  if constexpr (std::is_same_v<In, float>) return _mm512_max_epu32(a, b);
  return _mm512_max_epu16(a, b);
}

/// Reduces 16 vectors to one whose lane i is the maximum of vector i, as float32 bits.
template <typename In>
MXLM_AVX512_INLINE __m512i reduce16(const __m512i* v) {
  __m512i pairs[8];
  for (size_t i = 0; i < 8; ++i) {
    pairs[i] = larger<In>(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
  }
  __m512i fours[4];  // each 128-bit lane: maxima of four vectors
  for (size_t i = 0; i < 4; ++i) {
    fours[i] = larger<In>(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                          _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
  }
  __m512i eights[2];
  for (size_t i = 0; i < 2; ++i) {
    eights[i] = larger<In>(_mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                           _mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
  }
  const __m512i all =
      larger<In>(_mm512_shuffle_i32x4(eights[0], eights[1], 0x88), _mm512_shuffle_i32x4(eights[0], eights[1], 0xdd));
  if constexpr (std::is_same_v<In, float>) return all;
  return _mm512_max_epu32(_mm512_slli_epi32(all, 16), _mm512_and_si512(all, _mm512_set1_epi32(0x7fff0000)));
}

/// Scales of a group from its block maxima.
template <ElementKind kKind>
MXLM_AVX512_INLINE void make_group(const Plan& p, __m512i amax, Group& group) {
  const __mmask16 zero = _mm512_testn_epi32_mask(amax, amax);
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(amax, _mm512_set1_epi32(p.carry)), 23);
  __m512i e = _mm512_sub_epi32(rounded, _mm512_set1_epi32(127 + p.emax));
  e = _mm512_max_epi32(e, _mm512_set1_epi32(-p.limit));
  // Slow: float32 subnormals, Inf, NaN and the largest maxima; scales without a code; tiny scales.
  __mmask16 slow = _mm512_cmpge_epu32_mask(_mm512_sub_epi32(amax, _mm512_set1_epi32(1 << 23)),
                                           _mm512_set1_epi32((kHighestExponent + 126) << 23));
  slow |= _mm512_cmpgt_epi32_mask(e, _mm512_set1_epi32(p.limit));
  slow |= _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(-126 - p.emin));
  group.slow = static_cast<uint32_t>(slow & ~zero);
  // Any scale does for zeros.
  e = _mm512_mask_mov_epi32(e, zero, _mm512_setzero_si512());
  const __m512i shifted = _mm512_slli_epi32(e, 23);
  __m512i smallest = _mm512_add_epi32(shifted, _mm512_set1_epi32((p.emin + 127) << 23));
  if constexpr (kKind == ElementKind::integer) {
    smallest = _mm512_add_epi32(smallest, _mm512_set1_epi32(p.quantum_to_magic));
  }
  _mm512_store_si512(group.smallest, smallest);
  _mm512_store_si512(group.limit, _mm512_add_epi32(shifted, _mm512_set1_epi32(p.largest)));
}

// --- blocks; kLength 32, or 0 for any

MXLM_AVX512_INLINE __m512 widen(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
/// A result that is written past the caches: 64-byte aligned, whole blocks of 32.
struct Streamed {
  float* data;
  Streamed operator+(int64_t i) const { return {data + i}; }
};

/// Exact: the low halves are zero.
MXLM_AVX512_INLINE __m256i narrow(__m512 x) {
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(x), 16));
}

template <int64_t kLength, ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE void round_block(const float* in, int64_t n, const Constants& k, float* out) {
  const int64_t length = kLength != 0 ? kLength : n;
  int64_t i = 0;
  for (; i + 16 <= length; i += 16) {
    _mm512_storeu_ps(out + i, round16<kKind, kRounding>(_mm512_loadu_ps(in + i), k));
  }
  if (i < length) {
    const __mmask16 mask = tail16(length - i);
    _mm512_mask_storeu_ps(out + i, mask, round16<kKind, kRounding>(_mm512_maskz_loadu_ps(mask, in + i), k));
  }
}

template <int64_t kLength, ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE void round_block(const float* in, int64_t n, const Constants& k, BFloat16* out) {
  const int64_t length = kLength != 0 ? kLength : n;
  int64_t i = 0;
  for (; i + 32 <= length; i += 32) {
    const __m512 low = round16<kKind, kRounding>(_mm512_loadu_ps(in + i), k);
    const __m512 high = round16<kKind, kRounding>(_mm512_loadu_ps(in + i + 16), k);
    const __m512i packed = _mm512_packus_epi32(_mm512_srli_epi32(_mm512_castps_si512(low), 16),
                                               _mm512_srli_epi32(_mm512_castps_si512(high), 16));
    _mm512_storeu_si512(out + i, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed));
  }
  for (; i < length; i += 16) {
    const __mmask16 mask = tail16(std::min<int64_t>(length - i, 16));
    const __m512 x = _mm512_maskz_loadu_ps(mask, in + i);
    _mm256_mask_storeu_epi16(out + i, mask, narrow(round16<kKind, kRounding>(x, k)));
  }
}

template <int64_t kLength, ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE void round_block(const BFloat16* in, int64_t n, const Constants& k, float* out) {
  const int64_t length = kLength != 0 ? kLength : n;
  for (int64_t i = 0; i < length; i += 16) {
    const __mmask16 mask = tail16(std::min<int64_t>(length - i, 16));
    const __m512 x = widen(_mm256_maskz_loadu_epi16(mask, in + i));
    _mm512_mask_storeu_ps(out + i, mask, round16<kKind, kRounding>(x, k));
  }
}

template <int64_t kLength, ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE void round_block(const float* in, int64_t, const Constants& k, Streamed out) {
  static_assert(kLength % 16 == 0 && kLength > 0);
  for (int64_t i = 0; i < kLength; i += 16) {
    _mm512_stream_ps(out.data + i, round16<kKind, kRounding>(_mm512_loadu_ps(in + i), k));
  }
}

/// 32 bfloat16 values as two vectors of the even and the odd ones: cheaper to split and to join than halves.
template <ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE __m512i round32(__m512i x, const Constants& k) {
  const __m512 even = round16<kKind, kRounding>(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), k);
  const __m512 odd = round16<kKind, kRounding>(
      _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000U)))), k);
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even), 16), _mm512_castps_si512(odd));
}

template <int64_t kLength, ElementKind kKind, Rounding kRounding>
MXLM_AVX512_INLINE void round_block(const BFloat16* in, int64_t n, const Constants& k, BFloat16* out) {
  const int64_t length = kLength != 0 ? kLength : n;
  int64_t i = 0;
  for (; i + 32 <= length; i += 32) {
    _mm512_storeu_si512(out + i, round32<kKind, kRounding>(_mm512_loadu_si512(in + i), k));
  }
  if (i < length) {
    const __mmask32 mask = tail32(length - i);
    _mm512_mask_storeu_epi16(out + i, mask, round32<kKind, kRounding>(_mm512_maskz_loadu_epi16(mask, in + i), k));
  }
}

template <typename In>
uint32_t scalar_max(const In* in, int64_t n) {
  uint32_t amax = 0;
  for (int64_t i = 0; i < n; ++i) {
    amax = std::max(amax, mx::detail::bits_of(widen_one(in[i])) & mx::detail::kMagnitude);
  }
  return amax;
}

template <typename In, typename Out>
__attribute__((noinline)) void slow_block(const Format& f, const In* in, int64_t n, Out* out) {
  quantize_block(f, mx::shared_exponent(f, scalar_max(in, n)), in, n, out);
}

template <typename In>
void slow_block(const Format& f, const In* in, int64_t n, Streamed out) {
  slow_block(f, in, n, out.data);
}

template <int64_t kLength, ElementKind kKind, Rounding kRounding, typename In, typename Out>
MXLM_AVX512 void quantize_row(const Format& f, const In* in, int64_t n, Out out) {
  const Plan p = make_plan(f, n);
  const int64_t block = kLength != 0 ? kLength : p.block;
  const int64_t span = block * kGroup;
  const __m512i to_magic = _mm512_set1_epi32(p.quantum_to_magic);
  Group group;
  for (int64_t start = 0; start < n; start += span) {
    const int64_t end = std::min(n, start + span);
    __m512i maxima[kGroup];
    if (end - start == span) {
      for (int b = 0; b < kGroup; ++b) maxima[b] = partial_max<kLength>(in + start + b * block, block);
    } else {
      for (int b = 0; b < kGroup; ++b) {
        const int64_t left = end - start - b * block;
        maxima[b] = left > 0 ? partial_max<0>(in + start + b * block, std::min(left, block)) : _mm512_setzero_si512();
      }
    }
    make_group<kKind>(p, reduce16<In>(maxima), group);
    int b = 0;
    for (int64_t at = start; at < end; at += block, ++b) {
      const int64_t length = std::min(block, end - at);
      if ((group.slow >> b & 1U) != 0) {
        slow_block(f, in + at, length, out + at);
        continue;
      }
      const Constants k{_mm512_set1_epi32(group.smallest[b]), _mm512_set1_ps(group.limit[b]), to_magic};
      if constexpr (!std::is_same_v<Out, Streamed>) {
        if (kLength != 0 && length != block) {
          round_block<0, kKind, kRounding>(in + at, length, k, out + at);
          continue;
        }
      }
      round_block<kLength, kKind, kRounding>(in + at, length, k, out + at);
    }
  }
}

/// Rule mse: a scale at a time.
template <ElementKind kKind, Rounding kRounding, typename In, typename Out>
MXLM_AVX512 void least_error_row(const Format& f, const In* in, int64_t n, Out* out) {
  const Plan p = make_plan(f, n);
  std::vector<float> wide(std::is_same_v<In, float> ? 0 : static_cast<size_t>(std::min(n, p.block)));
  for (int64_t start = 0; start < n; start += p.block) {
    const int64_t length = std::min(p.block, n - start);
    const float* x = nullptr;
    if constexpr (std::is_same_v<In, float>) {
      x = in + start;
    } else {
      for (int64_t i = 0; i < length; ++i) wide[static_cast<size_t>(i)] = to_float(in[start + i]);
      x = wide.data();
    }
    const uint32_t amax = scalar_max(x, length);
    const int floor = mx::shared_exponent(f, amax);
    if (floor == mx::kNanExponent || !fits(p, floor, amax)) {
      quantize_block(f, mx::block_exponent(f, x, length), in + start, length, out + start);
    } else {
      const int e = least_error_exponent<kKind, kRounding>(p, floor, x, length);
      round_block<0, kKind, kRounding>(in + start, length, make_constants<kKind>(p, e), out + start);
    }
  }
}

template <ElementKind kKind, Rounding kRounding, typename In, typename Out>
void by_length(const Format& f, const In* in, int64_t n, Out out) {
  if constexpr (!std::is_same_v<Out, Streamed>) {
    if (f.rule == mx::ScaleRule::mse) return least_error_row<kKind, kRounding>(f, in, n, out);
    if (f.block_size != 32) return quantize_row<0, kKind, kRounding>(f, in, n, out);
  }
  quantize_row<32, kKind, kRounding>(f, in, n, out);
}

template <ElementKind kKind, typename In, typename Out>
void by_rounding(const Format& f, const In* in, int64_t n, Out out) {
  switch (f.rounding) {
    case Rounding::even:
      return by_length<kKind, Rounding::even>(f, in, n, out);
    case Rounding::nearest:
      return by_length<kKind, Rounding::nearest>(f, in, n, out);
    case Rounding::toward_zero:
      return by_length<kKind, Rounding::toward_zero>(f, in, n, out);
  }
}

template <typename In, typename Out>
void by_kind(const Format& f, const In* in, int64_t n, Out out) {
  if (f.element.kind == ElementKind::integer) {
    by_rounding<ElementKind::integer>(f, in, n, out);
  } else {
    by_rounding<ElementKind::floating>(f, in, n, out);
  }
}

}  // namespace

void quantize_decode_row(const mx::Format& format, const float* in, int64_t n, float* out) {
  by_kind(format, in, n, out);
}
void quantize_decode_row(const mx::Format& format, const float* in, int64_t n, BFloat16* out) {
  by_kind(format, in, n, out);
}
void quantize_decode_row(const mx::Format& format, const BFloat16* in, int64_t n, float* out) {
  by_kind(format, in, n, out);
}
void quantize_decode_row(const mx::Format& format, const BFloat16* in, int64_t n, BFloat16* out) {
  by_kind(format, in, n, out);
}

void quantize_decode_stream(const mx::Format& format, const float* in, int64_t n, float* out) {
  constexpr int64_t kBlock = 32;
  const bool can =
      reinterpret_cast<uintptr_t>(out) % 64 == 0 && format.block_size == kBlock && format.rule != mx::ScaleRule::mse;
  const int64_t whole = can ? n / kBlock * kBlock : 0;
  if (whole > 0) by_kind(format, in, whole, Streamed{out});
  if (whole < n) by_kind(format, in + whole, n - whole, out + whole);
  _mm_sfence();
}

}  // namespace mxlm::cpu::avx512
