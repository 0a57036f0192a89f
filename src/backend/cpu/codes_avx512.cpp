#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "backend/cpu/quantize_avx512.hpp"
#include "backend/cpu/quantize_avx512_kernels.hpp"

// Packed codes. Decoding: 32 codes at a time are spread to 16-bit lanes, looked up as bfloat16 in a table of all codes
// that lies in registers, and scaled by adding to the exponent. Encoding: values are rounded as in quantize_avx512.cpp
// and their bits shifted into codes.

namespace mxlm::cpu::avx512 {
namespace {

constexpr int kMaxCodeBits = 8;
constexpr int kLanes = 32;
constexpr int64_t kCodeAlign = 8;  // codes that take whole bytes, whatever their width

int64_t block_length(const Format& f, int64_t n) { return f.block_size == 0 ? n : f.block_size; }

/// Every code of an element format as a bfloat16, and how to spread 32 codes to lanes.
struct Decoder {
  alignas(64) std::array<uint16_t, 256> values;
  alignas(64) std::array<uint16_t, kLanes> low_word, high_word, shift, unshift;
  int bits;
  int lowest, highest;  // scale exponents under which every number other than zero is a normal bfloat16

  explicit Decoder(const mx::ElementFormat& e) : bits(e.bits()) {
    for (uint32_t i = 0; i < values.size(); ++i) {
      values[i] = to_bfloat16(mx::decode(e, i & ((1U << bits) - 1))).bits;
    }
    for (int i = 0; i < kLanes; ++i) {
      const auto lane = static_cast<size_t>(i);
      const int at = i * bits;
      low_word[lane] = static_cast<uint16_t>(at / 16);
      high_word[lane] = static_cast<uint16_t>(at / 16 + 1);
      shift[lane] = static_cast<uint16_t>(at % 16);
      unshift[lane] = static_cast<uint16_t>(16 - at % 16);
    }
    lowest = -126 - (e.emin - e.mantissa_bits);
    // The most negative code of an integer, which encoding never makes, is a power of two beyond the largest.
    highest = 127 - e.emax - (e.kind == ElementKind::integer ? 1 : 0);
  }
};

/// 32 codes at `p` (4 x bits bytes, of which `bytes` are there) in 16-bit lanes; bits above a code are left as they
/// are.
template <int kBits>
MXLM_AVX512_INLINE __m512i spread(const uint8_t* p, int64_t bytes, const Decoder& d) {
  if constexpr (kBits == 8) {
    return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(tail32(bytes), p));
  } else if constexpr (kBits == 4) {
    const __m512i pairs = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(tail16(bytes), p));
    return _mm512_or_si512(pairs, _mm512_slli_epi32(pairs, 12));
  } else {
    const __m512i all = _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(tail32(bytes), p));
    const __m512i low = _mm512_permutexvar_epi16(_mm512_load_si512(d.low_word.data()), all);
    const __m512i high = _mm512_permutexvar_epi16(_mm512_load_si512(d.high_word.data()), all);
    return _mm512_or_si512(_mm512_srlv_epi16(low, _mm512_load_si512(d.shift.data())),
                           _mm512_sllv_epi16(high, _mm512_load_si512(d.unshift.data())));
  }
}

/// The table entries that the low `kBits` bits of the lanes choose.
template <int kBits>
MXLM_AVX512_INLINE __m512i look_up(__m512i codes, const __m512i* table) {
  if constexpr (kBits <= 5) {
    return _mm512_permutexvar_epi16(codes, table[0]);
  } else {
    __m512i found = _mm512_permutex2var_epi16(table[0], codes, table[1]);
    if constexpr (kBits >= 7) {
      const __mmask32 bit6 = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(64));
      found = _mm512_mask_mov_epi16(found, bit6, _mm512_permutex2var_epi16(table[2], codes, table[3]));
      if constexpr (kBits == 8) {
        const __m512i upper = _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(table[4], codes, table[5]), bit6,
                                                    _mm512_permutex2var_epi16(table[6], codes, table[7]));
        found = _mm512_mask_mov_epi16(found, _mm512_test_epi16_mask(codes, _mm512_set1_epi16(128)), upper);
      }
    }
    return found;
  }
}

/// Scales bfloat16 lanes by adding to their exponents; zeros, Inf and NaN stay.
MXLM_AVX512_INLINE __m512i scale_lanes(__m512i values, __m512i exponent) {
  const __m512i magnitude = _mm512_and_si512(values, _mm512_set1_epi16(0x7fff));
  const __mmask32 number =
      _mm512_cmple_epu16_mask(_mm512_sub_epi16(magnitude, _mm512_set1_epi16(1)), _mm512_set1_epi16(0x7f7e));
  return _mm512_mask_add_epi16(values, number, values, exponent);
}

MXLM_AVX512_INLINE void store_lanes(__m512i values, int64_t n, BFloat16* out) {
  if (n >= kLanes) {
    _mm512_storeu_si512(out, values);
  } else {
    _mm512_mask_storeu_epi16(out, tail32(n), values);
  }
}

MXLM_AVX512_INLINE void store_lanes(__m512i values, int64_t n, float* out) {
  const __m512i low = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(values)), 16);
  const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(values, 1)), 16);
  _mm512_mask_storeu_epi32(out, tail16(std::min<int64_t>(n, 16)), low);
  if (n > 16) _mm512_mask_storeu_epi32(out + 16, tail16(std::min<int64_t>(n - 16, 16)), high);
}

template <typename Out>
__attribute__((noinline)) void decode_slowly(const Format& f, const uint8_t* codes, uint8_t scale, int64_t n,
                                             Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float value =
        scale == mx::kNanScale
            ? mx::detail::float_of(mx::detail::kQuietNan)
            : mx::scale_by(mx::decode(f.element, mx::get_code(codes, f.element.bits(), i)), scale - mx::kScaleBias);
    store_one(value, out[i]);
  }
}

template <int kBits, typename Out>
MXLM_AVX512 void decode_all(const Format& f, const Decoder& d, const uint8_t* codes, const uint8_t* scales, int64_t n,
                            Out* out) {
  constexpr int kVectors = kBits <= 5 ? 1 : (1 << kBits) / kLanes;
  __m512i table[kVectors];
  for (int64_t i = 0; i < kVectors; ++i) table[i] = _mm512_load_si512(d.values.data() + i * kLanes);
  const int64_t block = block_length(f, n);
  for (int64_t start = 0; start < n; start += block) {
    const int64_t length = std::min(block, n - start);
    const uint8_t scale = *scales++;
    const int e = scale - mx::kScaleBias;
    const uint8_t* p = codes + start * kBits / 8;
    if (scale == mx::kNanScale || e < d.lowest || e > d.highest) {
      decode_slowly(f, p, scale, length, out + start);
      continue;
    }
    const __m512i exponent = _mm512_set1_epi16(static_cast<int16_t>(e * 128));
    for (int64_t i = 0; i < length; i += kLanes, p += kLanes * kBits / 8) {
      const int64_t left = length - i;
      const int64_t bytes = left >= kLanes ? kLanes * kBits / 8 : (left * kBits + 7) / 8;
      const __m512i values = look_up<kBits>(spread<kBits>(p, bytes, d), table);
      store_lanes(scale_lanes(values, exponent), left, out + start + i);
    }
  }
}

/// A row is short and its table long, so a thread keeps the last table it made.
const Decoder& decoder_of(const mx::ElementFormat& element) {
  thread_local mx::ElementFormat last;
  thread_local Decoder decoder(mx::kElements[0].format);
  if (last != element) {
    decoder = Decoder(element);
    last = element;
  }
  return decoder;
}

template <typename Out>
void decode_by_bits(const Format& f, const uint8_t* codes, const uint8_t* scales, int64_t n, Out* out) {
  const Decoder& d = decoder_of(f.element);
  switch (d.bits) {
    case 2:
      return decode_all<2>(f, d, codes, scales, n, out);
    case 3:
      return decode_all<3>(f, d, codes, scales, n, out);
    case 4:
      return decode_all<4>(f, d, codes, scales, n, out);
    case 5:
      return decode_all<5>(f, d, codes, scales, n, out);
    case 6:
      return decode_all<6>(f, d, codes, scales, n, out);
    case 7:
      return decode_all<7>(f, d, codes, scales, n, out);
    default:
      return decode_all<8>(f, d, codes, scales, n, out);
  }
}

// --- encoding

/// The codes of 16 values that round16 has rounded under scale exponent e.
template <ElementKind kKind>
MXLM_AVX512_INLINE __m128i code16(const Plan& p, __m512 rounded, int e, int width) {
  const __m512i bits = _mm512_castps_si512(rounded);
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(kMagnitude));
  // 2^23 quanta of the subnormals (of everything, for integers): adding them leaves the count of quanta in the
  // p.mantissa.
  const __m512i base = _mm512_set1_epi32((e + p.emin - p.mantissa + 23 + 127) << 23);
  const __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(magnitude), _mm512_castsi512_ps(base));
  const __m512i steps = _mm512_sub_epi32(_mm512_castps_si512(sum), base);
  const __mmask16 negative = _mm512_movepi32_mask(bits);
  if constexpr (kKind == ElementKind::integer) {
    const __m512i code = _mm512_mask_sub_epi32(steps, negative, _mm512_setzero_si512(), steps);
    return _mm512_cvtepi32_epi8(_mm512_and_si512(code, _mm512_set1_epi32((1 << width) - 1)));
  } else {
    const __m512i smallest = _mm512_set1_epi32((e + p.emin + 127) << 23);
    const __mmask16 normal = _mm512_cmpge_epi32_mask(magnitude, smallest);
    const __m512i shifted = _mm512_srl_epi32(_mm512_sub_epi32(magnitude, smallest), _mm_cvtsi32_si128(23 - p.mantissa));
    __m512i code = _mm512_mask_add_epi32(steps, normal, shifted, _mm512_set1_epi32(1 << p.mantissa));
    code = _mm512_mask_or_epi32(code, negative, code, _mm512_set1_epi32(1 << (width - 1)));
    return _mm512_cvtepi32_epi8(code);
  }
}

/// Packs 16 codes of a byte each to 2 x bits bytes; writes up to 8 bytes beyond them.
MXLM_AVX512_INLINE void pack16(__m128i codes, int bits, uint64_t mask, uint8_t* to) {
  const uint64_t low = _pext_u64(static_cast<uint64_t>(_mm_cvtsi128_si64(codes)), mask);
  const uint64_t high = _pext_u64(static_cast<uint64_t>(_mm_extract_epi64(codes, 1)), mask);
  std::memcpy(to, &low, sizeof low);
  std::memcpy(to + bits, &high, sizeof high);
}

__attribute__((noinline)) void encode_slowly(const Format& f, int e, const float* in, int64_t n, uint8_t* codes) {
  const int bits = f.element.bits();
  std::memset(codes, 0, static_cast<size_t>((n * bits + 7) / 8));
  if (e == mx::kNanExponent) return;
  for (int64_t i = 0; i < n; ++i) mx::put_code(codes, bits, i, mx::encode(f.element, f.rounding, e, in[i]));
}

template <ElementKind kKind, Rounding kRounding>
MXLM_AVX512 void encode_all(const Format& f, const float* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  constexpr int64_t kPart = 256;
  const Plan p = make_plan(f, n);
  const int bits = f.element.bits();
  const uint64_t mask = 0x0101010101010101ULL * ((1U << bits) - 1);
  const int64_t block = block_length(f, n);
  for (int64_t start = 0; start < n; start += block) {
    const int64_t length = std::min(block, n - start);
    const float* x = in + start;
    const uint32_t amax = _mm512_reduce_max_epu32(partial_max<0>(x, length));
    int e = mx::shared_exponent(f, amax);
    uint8_t* to = codes + start * bits / 8;
    if (e == mx::kNanExponent || !fits(p, e, amax)) {
      e = f.rule == mx::ScaleRule::mse ? mx::block_exponent(f, x, length) : e;
      *scales++ = mx::scale_code(e);
      encode_slowly(f, e, x, length, to);
      continue;
    }
    if (f.rule == mx::ScaleRule::mse) e = least_error_exponent<kKind, kRounding>(p, e, x, length);
    *scales++ = mx::scale_code(e);
    const Constants k = make_constants<kKind>(p, e);
    std::array<uint8_t, kPart + 16> packed;
    for (int64_t at = 0; at < length; at += kPart) {
      const int64_t part = std::min(kPart, length - at);
      for (int64_t i = 0; i < part; i += 16) {
        const __m512 v = _mm512_maskz_loadu_ps(tail16(std::min<int64_t>(part - i, 16)), x + at + i);
        const __m128i code = code16<kKind>(p, round16<kKind, kRounding>(v, k), e, bits);
        pack16(code, bits, mask, packed.data() + i * bits / 8);
      }
      std::memcpy(to + at * bits / 8, packed.data(), static_cast<size_t>((part * bits + 7) / 8));
    }
  }
}

template <ElementKind kKind>
void encode_by_rounding(const Format& f, const float* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  switch (f.rounding) {
    case Rounding::even:
      return encode_all<kKind, Rounding::even>(f, in, n, codes, scales);
    case Rounding::nearest:
      return encode_all<kKind, Rounding::nearest>(f, in, n, codes, scales);
    case Rounding::toward_zero:
      return encode_all<kKind, Rounding::toward_zero>(f, in, n, codes, scales);
  }
}

}  // namespace

bool packs_fast(const mx::Format& format) {
  return format.element.bits() <= kMaxCodeBits && format.block_size % kCodeAlign == 0;
}

void encode_row(const mx::Format& format, const float* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  if (format.element.kind == ElementKind::integer) {
    encode_by_rounding<ElementKind::integer>(format, in, n, codes, scales);
  } else {
    encode_by_rounding<ElementKind::floating>(format, in, n, codes, scales);
  }
}

void encode_row(const mx::Format& format, const BFloat16* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  std::vector<float> wide(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) wide[static_cast<size_t>(i)] = to_float(in[i]);
  encode_row(format, wide.data(), n, codes, scales);
}

void decode_row(const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, BFloat16* out) {
  decode_by_bits(format, codes, scales, n, out);
}

void decode_row(const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, float* out) {
  decode_by_bits(format, codes, scales, n, out);
}

}  // namespace mxlm::cpu::avx512
