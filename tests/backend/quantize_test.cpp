// The fast paths of backend/cpu/quantize.hpp give the bits of the portable one.

#include "backend/cpu/quantize.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "mx/quantize.hpp"

namespace mxlm::cpu {
namespace {

using mx::Format;
using mx::Rounding;
using mx::ScaleRule;

/// Values that quantisers get wrong: ties, edges of binades, every exponent, subnormals, zeros, Inf and NaN.
class Hard {
 public:
  explicit Hard(uint64_t seed) : random_(seed) {}

  /// A row whose blocks have one kind of values each.
  std::vector<float> row(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    int kind = 0, center = 127;
    for (size_t i = 0; i < x.size(); ++i) {
      if (i % 8 == 0) {
        kind = static_cast<int>(random_() % 8);
        // Mostly everyday exponents, sometimes any.
        center = random_() % 4 == 0 ? static_cast<int>(random_() % 255) : 110 + static_cast<int>(random_() % 30);
      }
      x[i] = value(kind, center);
    }
    return x;
  }

 private:
  float value(int kind, int center) {
    const auto r = static_cast<uint32_t>(random_());
    const uint32_t sign = r & 0x80000000U;
    const int below = std::countr_zero(static_cast<uint32_t>(random_()) | 1U << 20);
    const auto exponent = static_cast<uint32_t>(std::max(center - below, 0)) << 23;
    uint32_t mantissa = r & 0x7fffffU;
    switch (kind) {
      case 0:  // anything
        break;
      case 1:  // few bits: ties
        mantissa &= 0x780000U;
        break;
      case 2:
        mantissa &= 0x7e0000U;
        break;
      case 3:  // beside a few bits
        mantissa = (mantissa & 0x780000U) + (r >> 29 & 1U);
        break;
      case 4:
        mantissa = ((mantissa & 0x780000U) - 1) & 0x7fffffU;
        break;
      case 5:  // zeros among others
        return std::bit_cast<float>(r % 3 == 0 ? sign | exponent | mantissa : sign);
      case 6:
        return std::bit_cast<float>(sign);
      default:
        if (r % 97 == 0) return std::bit_cast<float>(sign | 0x7f800000U | (r % 2 == 0 ? 0 : mantissa));
        if (r % 5 == 0) return std::bit_cast<float>(sign | mantissa);
        break;
    }
    return std::bit_cast<float>(sign | exponent | mantissa);
  }

  std::mt19937_64 random_;
};

template <typename T>
auto bits_of(T x) {
  if constexpr (std::is_same_v<T, float>) {
    return std::bit_cast<uint32_t>(x);
  } else {
    return x.bits;
  }
}

template <typename In, typename Out>
void expect_same(const Format& f, const std::vector<In>& in, const std::string& what) {
  const auto n = static_cast<int64_t>(in.size());
  std::vector<Out> portable(in.size()), fast(in.size());
  quantize_decode_row(Isa::portable, f, in.data(), n, portable.data());
  quantize_decode_row(detect_isa(), f, in.data(), n, fast.data());
  for (size_t i = 0; i < in.size(); ++i) {
    ASSERT_EQ(bits_of(portable[i]), bits_of(fast[i]))
        << what << " n " << n << " at " << i << " bits " << bits_of(in[i]);
  }
}

mx::ElementFormat named(const char* name) { return mx::parse_element(name).value_or(mx::ElementFormat{}); }

std::string describe(const Format& f) {
  return mx::element_name(f.element) + " block " + std::to_string(f.block_size) + " bits " +
         std::to_string(f.scale_bits) + " " + std::string(mx::rule_name(f.rule)) + " " +
         std::string(mx::rounding_name(f.rounding));
}

/// Every named format and some generic ones, in all rules and roundings, scale bits and block sizes in turn.
std::vector<Format> formats() {
  std::vector<mx::ElementFormat> elements;
  for (const auto& e : mx::kElements) elements.push_back(e.format);
  for (const char* name :
       {"mxe1m0", "mxe1m2", "mxe5m10", "mxe7m4", "mxe3m0", "mxint2", "mxint4", "mxint9", "mxint16"}) {
    elements.push_back(named(name));
  }
  constexpr std::array<int, 8> kBlocks{32, 16, 8, 32, 0, 40, 256, 9};
  std::vector<Format> all;
  size_t i = 0;
  for (const auto& e : elements) {
    for (const auto& rule : mx::kScaleRules) {
      for (const auto& rounding : mx::kRoundings) {
        const int block = kBlocks[i % kBlocks.size()];
        const int bits = i % 3 == 0 ? mx::kScaleBits[i / 3 % mx::kScaleBits.size()] : 8;
        all.push_back({e, block, bits, rule.rule, rounding.rounding});
        ++i;
      }
    }
  }
  return all;
}

TEST(QuantizeRows, FastPathsGiveThePortableBits) {
  Hard hard(7);
  for (const Format& f : formats()) {
    for (const int64_t n : {int64_t{576}, int64_t{1}, int64_t{31}, int64_t{1543}}) {
      const std::vector<float> x = hard.row(n);
      std::vector<BFloat16> narrow(x.size());
      for (size_t i = 0; i < x.size(); ++i) narrow[i] = {static_cast<uint16_t>(std::bit_cast<uint32_t>(x[i]) >> 16)};
      const std::string what = describe(f);
      ASSERT_NO_FATAL_FAILURE((expect_same<float, float>(f, x, what)));
      ASSERT_NO_FATAL_FAILURE((expect_same<BFloat16, float>(f, narrow, what)));
      if (mx::decodes_exactly_to_bf16(f)) {
        ASSERT_NO_FATAL_FAILURE((expect_same<float, BFloat16>(f, x, what)));
        ASSERT_NO_FATAL_FAILURE((expect_same<BFloat16, BFloat16>(f, narrow, what)));
      }
    }
  }
}

TEST(QuantizeRows, EveryExponentOfTheMaximum) {
  for (const auto& e : mx::kElements) {
    for (const auto& rule : mx::kScaleRules) {
      std::vector<float> x;
      for (uint32_t exponent = 0; exponent < 256; ++exponent) {
        for (const uint32_t mantissa :
             {0U, 1U, 0x3fffffU, 0x400000U, 0x5fffffU, 0x600000U, 0x77ffffU, 0x780000U, 0x7fffffU}) {
          for (uint32_t i = 0; i < 8; ++i) {
            const uint32_t lower = exponent > i ? exponent - i : 0;
            x.push_back(std::bit_cast<float>((i % 2) << 31 | lower << 23 | (i == 7 ? 0x7fffffU : mantissa)));
          }
        }
      }
      const Format f{e.format, 8, 8, rule.rule, Rounding::even};
      ASSERT_NO_FATAL_FAILURE((expect_same<float, float>(f, x, describe(f))));
      ASSERT_NO_FATAL_FAILURE((expect_same<float, BFloat16>(f, x, describe(f))));
    }
  }
}

TEST(QuantizeRows, MayWorkInPlace) {
  Hard hard(11);
  for (const Format& f : formats()) {
    std::vector<float> x = hard.row(1000), apart(1000);
    quantize_decode_row(detect_isa(), f, x.data(), 1000, apart.data());
    quantize_decode_row(detect_isa(), f, x.data(), 1000, x.data());
    ASSERT_EQ(std::memcmp(x.data(), apart.data(), sizeof(float) * x.size()), 0) << describe(f);
  }
}

/// Decoding codes gives what quantise-and-decode gives; integers have one zero either way.
TEST(QuantizeRows, CodesDecodeToTheSameValues) {
  Hard hard(13);
  for (const Format& f : formats()) {
    if (f.scale_bits > 8) continue;
    for (const int64_t n : {int64_t{576}, int64_t{1}, int64_t{31}, int64_t{1543}}) {
      const std::vector<float> x = hard.row(n);
      const auto size = static_cast<size_t>(n);
      std::vector<float> expected(size);
      quantize_decode_row(Isa::portable, f, x.data(), n, expected.data());
      std::vector<uint8_t> first;
      for (const Isa isa : {Isa::portable, detect_isa()}) {
        // Exactly as many bytes as promised: sanitizers see a write or read beyond.
        std::vector<uint8_t> codes(static_cast<size_t>(code_bytes(f, n))),
            scales(static_cast<size_t>(scale_bytes(f, n)));
        encode_row(isa, f, x.data(), n, codes.data(), scales.data());
        std::vector<uint8_t> both = codes;
        both.insert(both.end(), scales.begin(), scales.end());
        if (first.empty()) first = both;
        ASSERT_EQ(both, first) << describe(f);
        std::vector<float> decoded(size);
        decode_row(isa, f, codes.data(), scales.data(), n, decoded.data());
        for (size_t i = 0; i < size; ++i)
          ASSERT_EQ(bits_of(decoded[i]), bits_of(expected[i])) << describe(f) << " at " << i;
        if (mx::decodes_exactly_to_bf16(f)) {
          std::vector<BFloat16> narrow(size);
          decode_row(isa, f, codes.data(), scales.data(), n, narrow.data());
          for (size_t i = 0; i < size; ++i) {
            ASSERT_EQ(narrow[i].bits, to_bfloat16(expected[i]).bits) << describe(f) << " at " << i;
          }
        }
      }
    }
  }
}

/// Any bytes decode alike: codes beyond the largest element, every scale.
TEST(QuantizeRows, AnyBytesDecodeAlike) {
  std::mt19937 random(17);
  for (const Format& f : formats()) {
    if (!mx::decodes_exactly_to_bf16(f)) continue;
    constexpr int64_t kN = 900;
    std::vector<uint8_t> codes(static_cast<size_t>(code_bytes(f, kN))), scales(static_cast<size_t>(scale_bytes(f, kN)));
    for (auto& c : codes) c = static_cast<uint8_t>(random());
    for (auto& s : scales) s = static_cast<uint8_t>(random());
    std::vector<BFloat16> portable(kN), fast(kN);
    decode_row(Isa::portable, f, codes.data(), scales.data(), kN, portable.data());
    decode_row(detect_isa(), f, codes.data(), scales.data(), kN, fast.data());
    for (size_t i = 0; i < kN; ++i) ASSERT_EQ(portable[i].bits, fast[i].bits) << describe(f) << " at " << i;
  }
}

}  // namespace
}  // namespace mxlm::cpu
