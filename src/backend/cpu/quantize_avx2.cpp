// The method of quantize_avx512.cpp on 16 lanes of AVX2, a block at a time: adding and subtracting 1.5 x 2^23 quanta
// rounds a value to its quantum, 2^(max(exponent(x), e + emin) - mantissa bits).

#include "backend/cpu/quantize_avx2.hpp"

#include <algorithm>
#include <bit>

#include "backend/cpu/quantize_avx512_kernels.hpp"
#include "backend/cpu/quantize_block.hpp"
#include "backend/cpu/simd/avx2.hpp"

namespace mxlm::cpu::avx2 {
namespace {

using mx::ElementKind;
using mx::Rounding;

/// What a block is rounded with: 2^(e + emin), or the rounding constant of integers; the largest magnitude; and what
/// makes a rounding constant of a power of two.
struct BlockConstants {
  Floats smallest, limit, to_magic;
};

/// Bits of 2^exponent.
constexpr uint32_t power_bits(int exponent) { return static_cast<uint32_t>(exponent + 127) << 23; }

MXLM_AVX2_OP Floats of_bits(uint32_t bits) { return spread(std::bit_cast<float>(bits)); }

/// a + b rounded toward zero, for positive b and smaller a >= 0.
MXLM_AVX2_OP __m256 add_toward_zero(__m256 a, __m256 b) {
  const __m256 sum = _mm256_add_ps(a, b);
  // A sum that rounding has raised is one unit in the last place too large; the difference is exact.
  const __m256 raised = _mm256_cmp_ps(_mm256_sub_ps(sum, b), a, _CMP_GT_OQ);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), _mm256_castps_si256(raised)));
}
MXLM_AVX2_OP Floats add_toward_zero(Floats a, Floats b) {
  return {add_toward_zero(a.low, b.low), add_toward_zero(a.high, b.high)};
}

template <ElementKind kKind, Rounding kRounding>
MXLM_AVX2_OP Floats round16(Floats x, const BlockConstants& k) {
  const Floats sign = spread(-0.0F);
  Floats c = k.smallest;
  if constexpr (kKind == ElementKind::floating) {
    c = mul(max_of(bit_and(x, of_bits(0x7f800000U)), k.smallest), k.to_magic);
  }
  Floats r;
  if constexpr (kRounding == Rounding::even) {
    r = sub(add(x, c), c);
    r = bit_or(min_of(and_not(sign, r), k.limit), bit_and(sign, r));
    if constexpr (kKind == ElementKind::integer) return r;
  } else {
    const Floats a = and_not(sign, x);
    if constexpr (kRounding == Rounding::toward_zero) {
      r = sub(add_toward_zero(a, c), c);
    } else {
      // c is 2^22 quanta here: the sum counts half quanta. Half a quantum more, then the odd half dropped.
      const Floats one = of_bits(1);
      r = sub(and_not(one, add_toward_zero(a, bit_or(c, one))), c);
    }
    r = min_of(r, k.limit);
  }
  r = bit_or(r, bit_and(sign, x));
  if constexpr (kKind == ElementKind::integer) r = add(r, zeros());  // -0 becomes +0
  return r;
}

MXLM_AVX2_OP Floats load_values(Left left, const float* x) { return load(left, x); }
MXLM_AVX2_OP Floats load_values(Left left, const BFloat16* x) { return load_bf16(left, x); }
MXLM_AVX2_OP void store_values(Left left, float* out, Floats x) { store(left, out, x); }
MXLM_AVX2_OP void store_values(Left left, BFloat16* out, Floats x) {
  store_bf16(left, out, {_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)});  // exact
}

template <ElementKind kKind, Rounding kRounding, typename In, typename Out>
MXLM_TARGET_AVX2 void round_values(const avx512::Plan& p, int e, const In* in, int64_t n, Out* out) {
  uint32_t smallest = power_bits(e + p.emin);
  if (kKind == ElementKind::integer) smallest += static_cast<uint32_t>(p.quantum_to_magic);
  const BlockConstants k{of_bits(smallest), of_bits(static_cast<uint32_t>(p.largest + e * (1 << 23))),
                         of_bits(power_bits(0) + static_cast<uint32_t>(p.quantum_to_magic))};
  for (int64_t i = 0; i < n; i += 16) {
    const Left left = lanes_left(n - i);
    store_values(left, out + i, round16<kKind, kRounding>(load_values(left, in + i), k));
  }
}

template <ElementKind kKind, typename In, typename Out>
void by_rounding(Rounding rounding, const avx512::Plan& p, int e, const In* in, int64_t n, Out* out) {
  switch (rounding) {
    case Rounding::even:
      return round_values<kKind, Rounding::even>(p, e, in, n, out);
    case Rounding::nearest:
      return round_values<kKind, Rounding::nearest>(p, e, in, n, out);
    case Rounding::toward_zero:
      return round_values<kKind, Rounding::toward_zero>(p, e, in, n, out);
  }
}

template <typename In>
MXLM_TARGET_AVX2 uint32_t largest_of(const In* in, int64_t n) {
  __m256i best = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 16) {
    const Floats x = and_not(spread(-0.0F), load_values(lanes_left(n - i), in + i));
    best = _mm256_max_epu32(best, _mm256_max_epu32(_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)));
  }
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(best), _mm256_extracti128_si256(best, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
}

}  // namespace

template <typename In, typename Out>
void quantize_decode_row(const mx::Format& format, const In* in, int64_t n, Out* out) {
  const avx512::Plan plan = avx512::make_plan(format, n);
  const int64_t block = format.block_size == 0 ? n : format.block_size;
  for (int64_t start = 0; start < n; start += block) {
    const int64_t length = std::min(block, n - start);
    const uint32_t amax = largest_of(in + start, length);
    int e = 0;  // any scale does for zeros
    if (amax != 0) {
      e = format.rule == mx::ScaleRule::mse ? exponent_of(format, in + start, length)
                                            : mx::shared_exponent(format, amax);
      if (e == mx::kNanExponent || !avx512::fits(plan, e, amax)) {
        quantize_block(format, e, in + start, length, out + start);
        continue;
      }
    }
    if (format.element.kind == ElementKind::integer) {
      by_rounding<ElementKind::integer>(format.rounding, plan, e, in + start, length, out + start);
    } else {
      by_rounding<ElementKind::floating>(format.rounding, plan, e, in + start, length, out + start);
    }
  }
}

template void quantize_decode_row(const mx::Format&, const float*, int64_t, float*);
template void quantize_decode_row(const mx::Format&, const float*, int64_t, BFloat16*);
template void quantize_decode_row(const mx::Format&, const BFloat16*, int64_t, float*);
template void quantize_decode_row(const mx::Format&, const BFloat16*, int64_t, BFloat16*);

}  // namespace mxlm::cpu::avx2
