// The definition of quantising (mx/quantize.hpp) against brute force and against values worked out by hand.

#include "mx/quantize.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tensor/dtype.hpp"

namespace mxlm::mx {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

ElementFormat named(const char* name) { return parse_element(name).value_or(ElementFormat{}); }

std::vector<ElementFormat> elements() {
  std::vector<ElementFormat> all;
  for (const auto& e : kElements) all.push_back(e.format);
  for (const char* name : {"mxe1m0", "mxe1m3", "mxe3m0", "mxe4m3", "mxe5m2", "mxe7m2", "mxe5m10", "mxint2", "mxint5"}) {
    all.push_back(named(name));
  }
  return all;
}

/// Magnitudes of all numbers of a format, ascending; index parity is the parity of the last bit.
std::vector<double> magnitudes(const ElementFormat& e) {
  std::vector<double> all;
  for (uint32_t code = 0; code < 1U << (e.bits() - 1); ++code) {
    const double value = decode(e, code);
    if (value <= e.max) all.push_back(value);
  }
  return all;
}

/// Without mantissa bits both neighbours of a tie end in an odd digit, unless one is zero: IEEE 754 then takes the
/// larger.
double nearest_of(const std::vector<double>& grid, Rounding rounding, double v, bool one_digit) {
  const auto above = static_cast<size_t>(std::lower_bound(grid.begin(), grid.end(), v) - grid.begin());
  if (above == grid.size()) return grid.back();
  if (grid[above] == v || above == 0) return grid[above];
  const size_t below = above - 1;
  const double to_below = v - grid[below], to_above = grid[above] - v;
  if (rounding == Rounding::toward_zero || to_below < to_above) return grid[below];
  if (to_above < to_below || rounding == Rounding::nearest) return grid[above];
  if (one_digit) return below == 0 ? grid[below] : grid[above];
  return below % 2 == 0 ? grid[below] : grid[above];
}

float random_value(std::mt19937& random, int top) {
  const auto bits = static_cast<uint32_t>(random());
  const int exponent = std::clamp(top - static_cast<int>(random() % 12), 0, 254);
  uint32_t mantissa = bits & 0x7fffffU;
  switch (random() % 4) {
    case 0:
      mantissa &= 0x700000U;
      break;
    case 1:
      mantissa = (mantissa & 0x7c0000U) + 1;
      break;
    case 2:
      mantissa = ((mantissa & 0x7c0000U) - 1) & 0x7fffffU;
      break;
    default:
      break;
  }
  return std::bit_cast<float>((bits & 0x80000000U) | static_cast<uint32_t>(exponent) << 23 | mantissa);
}

TEST(Quantize, RoundsAsBruteForceDoes) {
  std::mt19937 random(3);
  for (const ElementFormat& e : elements()) {
    const std::vector<double> grid = magnitudes(e);
    const bool one_digit = e.kind == ElementKind::floating && e.mantissa_bits == 0;
    for (const auto& rounding : kRoundings) {
      for (int i = 0; i < 3000; ++i) {
        const int scale = static_cast<int>(random() % 101) - 50;
        const float x = random_value(random, scale + e.emax + 127 + 1);
        const double v = std::ldexp(std::abs(static_cast<double>(x)), -scale);
        const double expected = std::copysign(std::ldexp(nearest_of(grid, rounding.rounding, v, one_digit), scale), x);
        const float got = quantize_decode(e, rounding.rounding, scale, x);
        ASSERT_EQ(got, static_cast<float>(expected))
            << element_name(e) << " " << rounding.name << " scale " << scale << " x " << x;
      }
    }
  }
}

TEST(Quantize, KeepsTheSignOfZeroButInIntegers) {
  EXPECT_TRUE(std::signbit(quantize_decode(named("mxfp4"), Rounding::even, 0, -0.1F)));
  EXPECT_TRUE(std::signbit(quantize_decode(named("mxfp4"), Rounding::even, 0, -0.0F)));
  EXPECT_FALSE(std::signbit(quantize_decode(named("mxint8"), Rounding::even, 0, -0.001F)));
  EXPECT_EQ(encode(named("mxfp4"), Rounding::even, 0, -0.1F), 8U);
}

/// Rules by their definitions, searched in double.
int brute_exponent(const Format& f, double amax) {
  const int floor = std::ilogb(amax) - f.element.emax;
  const double fraction = amax / std::ldexp(1.0, std::ilogb(amax));
  switch (f.rule) {
    case ScaleRule::ceil: {
      int e = floor;
      while (std::ldexp(1.0, e + f.element.emax) < amax) ++e;
      return e;
    }
    case ScaleRule::rceil: {
      int e = floor - 1;
      while (std::ldexp(static_cast<double>(f.element.max), e) < amax) ++e;
      return e;
    }
    case ScaleRule::even:
      return floor + (std::floor(std::ldexp(fraction, f.element.mantissa_bits) + 0.5) >=
                              std::ldexp(2.0, f.element.mantissa_bits)
                          ? 1
                          : 0);
    case ScaleRule::ct:
      return floor + (fraction >= (f.element == named("mxfp6_e2m3") ? 1.9375 : 1.75) ? 1 : 0);
    default:
      return floor;
  }
}

TEST(Quantize, ScaleRulesAreTheirDefinitions) {
  std::mt19937 random(5);
  for (const ElementFormat& e : elements()) {
    for (const auto& rule : kScaleRules) {
      for (const int bits : kScaleBits) {
        const Format f{e, 32, bits, rule.rule, Rounding::even};
        const int limit = (1 << (bits - 1)) - 1;
        for (int i = 0; i < 300; ++i) {
          const float amax = std::abs(random_value(random, static_cast<int>(random() % 256)));
          if (amax == 0 || !std::isfinite(amax)) continue;
          const int wanted = brute_exponent(f, amax);
          const int expected = wanted > limit ? kNanExponent : std::max(wanted, -limit);
          ASSERT_EQ(shared_exponent(f, std::bit_cast<uint32_t>(amax)), expected)
              << element_name(e) << " " << rule.name << " bits " << bits << " amax " << amax;
        }
      }
    }
  }
}

TEST(Quantize, MseTakesTheLeastErrorOfThree) {
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  int moved = 0;
  for (const auto& entry : kElements) {
    for (int i = 0; i < 200; ++i) {
      std::vector<float> x(32);
      for (float& v : x) v = normal(random);
      const Format f{entry.format, 32, 8, ScaleRule::mse, Rounding::even};
      const int floor = shared_exponent(f, block_max(x.data(), 32));
      int best = floor;
      double least = std::numeric_limits<double>::infinity();
      for (const int e : {floor, floor + 1, floor - 1}) {
        double error = 0;
        for (const float v : x)
          error += std::pow(static_cast<double>(v) - quantize_decode(f.element, f.rounding, e, v), 2);
        if (error < least) {
          least = error;
          best = e;
        }
      }
      ASSERT_EQ(block_exponent(f, x.data(), 32), best);
      moved += best != floor ? 1 : 0;
    }
  }
  EXPECT_GT(moved, 10);
}

TEST(Quantize, MseTiesGoToFloor) {
  const Format f{named("mxfp4"), 32, 8, ScaleRule::mse, Rounding::even};
  const std::array<float, 2> exact{4, 2};  // no error under floor nor under floor + 1
  EXPECT_EQ(block_exponent(f, exact.data(), 2), 0);
}

// --- blocks with something special

Format plain(const char* name) { return {named(name)}; }

TEST(Quantize, NanAndInfSpoilTheirBlockOnly) {
  for (const float bad : {kNan, kInf, -kInf}) {
    for (const auto& rule : kScaleRules) {
      Format f = plain("mxfp8");
      f.rule = rule.rule;
      const std::array<float, 4> x{1, bad, 0, 2};
      std::array<float, 4> y{};
      quantize_decode_block(f, x.data(), 4, y.data());
      for (const float v : y) EXPECT_TRUE(std::isnan(v));
    }
  }
}

TEST(Quantize, ScalesOutOfRange) {
  Format f = plain("mxfp4");  // emax 2
  f.scale_bits = 4;           // -7..7
  std::array<float, 2> x{512, 1}, y{};
  quantize_decode_block(f, x.data(), 2, y.data());  // 2^9: scale 7
  EXPECT_EQ(y[0], 512);
  x[0] = 1024;  // scale 8 has no code
  quantize_decode_block(f, x.data(), 2, y.data());
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]));
  x = {0x1p-8F, 0x1p-12F};  // wants -10, gets -7: the step is 2^-8
  quantize_decode_block(f, x.data(), 2, y.data());
  EXPECT_EQ(y[0], 0x1p-8F);
  EXPECT_EQ(y[1], 0);
}

TEST(Quantize, ZerosAndSubnormals) {
  for (const auto& e : kElements) {
    const Format f{e.format};
    const std::array<float, 3> zero{0, -0.0F, 0};
    std::array<float, 3> y{1, 1, 1};
    quantize_decode_block(f, zero.data(), 3, y.data());
    for (const float v : y) EXPECT_EQ(v, 0);
    // As microxcaling: scale 2^-127, and 2^-126 where emax is 0.
    EXPECT_EQ(block_exponent(f, zero.data(), 3), e.format.emax == 0 ? -126 : -127);
  }
  const std::array<float, 2> tiny{0x1p-149F, 0x1.8p-140F};
  std::array<float, 2> y{};
  quantize_decode_block(plain("mxfp8_e5m2"), tiny.data(), 2, y.data());  // step 2^-16 x 2^-127 = 2^-143
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[1], 0x1.8p-140F);
}

TEST(Quantize, RoundingUpPastFloat32IsInf) {
  Format f = plain("mxfp8");
  f.rule = ScaleRule::ceil;
  const float x = std::numeric_limits<float>::max();
  float y = 0;
  quantize_decode_block(f, &x, 1, &y);  // 2^128
  EXPECT_EQ(y, kInf);
  f.rule = ScaleRule::floor;
  quantize_decode_block(f, &x, 1, &y);
  EXPECT_EQ(y, 0x1.cp127F);  // saturates at 448
}

// --- where the oracles are wrong (docs/numerics.md): what we give instead

TEST(Quantize, AmaxJustUnderAPowerOfTwo) {
  // A rounded log2 says 5 of 2^5 - 1 ulp; its exponent is 4.
  const float under = std::nextafter(32.0F, 0.0F);
  const Format f = plain("mxfp4");
  EXPECT_EQ(shared_exponent(f, std::bit_cast<uint32_t>(under)), 2);
  EXPECT_EQ(shared_exponent(f, std::bit_cast<uint32_t>(32.0F)), 3);
  EXPECT_EQ(shared_exponent(f, std::bit_cast<uint32_t>(std::nextafter(0x1p-3F, 0.0F))), -6);
}

TEST(Quantize, JustUnderHalfTheSmallestStepIsZero) {
  const ElementFormat e2m1 = named("mxfp4");
  const float under = std::nextafter(0.25F, 0.0F);
  for (const Rounding r : {Rounding::even, Rounding::nearest}) {
    EXPECT_EQ(quantize_decode(e2m1, r, 0, under), 0);
    EXPECT_EQ(quantize_decode(e2m1, r, 0, std::nextafter(0.25F, 1.0F)), 0.5F);
  }
  EXPECT_EQ(quantize_decode(e2m1, Rounding::even, 0, 0.25F), 0);
  EXPECT_EQ(quantize_decode(e2m1, Rounding::nearest, 0, 0.25F), 0.5F);
}

TEST(Quantize, ElementJustUnderAPowerOfTwoRoundedDown) {
  EXPECT_EQ(quantize_decode(named("mxfp8_e5m2"), Rounding::toward_zero, 0, -0x1.fffffap-9F), -0x1.cp-9F);
}

TEST(Quantize, SixteenScaleBitsReachTinyBlocks) {
  Format f = plain("mxfp8_e5m2");
  f.scale_bits = 16;
  const float x = 0x1p-149F;
  float y = 0;
  quantize_decode_block(f, &x, 1, &y);
  EXPECT_EQ(y, x);
  EXPECT_EQ(block_exponent(f, &x, 1), -164);
}

TEST(Quantize, RceilJustAboveTheLargestElement) {
  Format f = plain("mxfp4");
  f.rule = ScaleRule::rceil;
  EXPECT_EQ(shared_exponent(f, std::bit_cast<uint32_t>(192.0F)), 5);  // 6 x 2^5
  EXPECT_EQ(shared_exponent(f, std::bit_cast<uint32_t>(std::nextafter(192.0F, 200.0F))), 6);
}

// --- codes

TEST(Codes, OfTheStandard) {
  const ElementFormat e4m3 = named("mxfp8_e4m3"), e5m2 = named("mxfp8_e5m2");
  EXPECT_EQ(decode(e4m3, 0x7e), 448);
  EXPECT_EQ(decode(e4m3, 0x08), 0x1p-6F);
  EXPECT_EQ(decode(e4m3, 0x81), -0x1p-9F);
  EXPECT_TRUE(std::isnan(decode(e4m3, 0x7f)));
  EXPECT_EQ(decode(e5m2, 0x7b), 57344);
  EXPECT_EQ(decode(e5m2, 0x01), 0x1p-16F);
  EXPECT_EQ(decode(e5m2, 0x7c), kInf);
  EXPECT_EQ(decode(e5m2, 0xfc), -kInf);
  EXPECT_TRUE(std::isnan(decode(e5m2, 0x7d)));
  constexpr std::array<float, 8> kE2m1{0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
  for (uint32_t i = 0; i < 8; ++i) {
    EXPECT_EQ(decode(named("mxfp4"), i), kE2m1[i]);
    EXPECT_EQ(decode(named("mxfp4"), i | 8), -kE2m1[i]);
  }
  EXPECT_EQ(decode(named("mxint8"), 0x81), -127.0F / 64);
  EXPECT_EQ(decode(named("mxfp6_e3m2"), 0x1f), 28);
  EXPECT_EQ(decode(named("mxfp6_e2m3"), 0x1f), 7.5F);
}

TEST(Codes, EveryCodeEncodesToItself) {
  for (const ElementFormat& e : elements()) {
    for (uint32_t code = 0; code < 1U << e.bits(); ++code) {
      const float value = decode(e, code);
      if (!(std::abs(value) <= e.max)) continue;  // NaN, Inf, and the integer that is never made
      for (const int scale : {0, -20, 31}) {
        for (const auto& r : kRoundings) {
          ASSERT_EQ(encode(e, r.rounding, scale, scale_by(value, scale)), code) << element_name(e) << " " << value;
        }
      }
    }
  }
}

TEST(Codes, PackLowBitsFirst) {
  std::vector<uint8_t> bytes(3);
  for (uint32_t i = 0; i < 4; ++i) put_code(bytes.data(), 6, i, 0x21 + i);
  const uint32_t word = bytes[0] | bytes[1] << 8 | bytes[2] << 16;
  EXPECT_EQ(word, 0x21U | 0x22U << 6 | 0x23U << 12 | 0x24U << 18);
  std::vector<uint8_t> nibbles(1);
  put_code(nibbles.data(), 4, 0, 0xa);
  put_code(nibbles.data(), 4, 1, 0x5);
  EXPECT_EQ(nibbles[0], 0x5a);
  EXPECT_EQ(packed_bytes(named("mxfp4"), 5), 3);
  EXPECT_EQ(packed_bytes(named("mxfp6"), 5), 4);
}

TEST(Codes, EveryWidthUnpacksToWhatWasPacked) {
  std::mt19937 random(4);
  for (int bits = 2; bits <= 16; ++bits) {
    std::vector<uint32_t> codes(37);
    for (auto& c : codes) c = static_cast<uint32_t>(random()) & ((1U << bits) - 1);
    std::vector<uint8_t> bytes((codes.size() * static_cast<size_t>(bits) + 7) / 8);
    for (size_t i = 0; i < codes.size(); ++i) put_code(bytes.data(), bits, static_cast<int64_t>(i), codes[i]);
    for (size_t i = 0; i < codes.size(); ++i) {
      ASSERT_EQ(get_code(bytes.data(), bits, static_cast<int64_t>(i)), codes[i]);
    }
  }
}

/// Enumerated: element x scale is a bfloat16 exactly for these scale exponents, and for no wider range of E8M0.
TEST(Exactness, ElementTimesScaleIsABfloat16) {
  struct Range {
    const char* name;
    int low, high;
  };
  for (const auto& [name, low, high] :
       {Range{"mxfp8_e5m2", -117, 112}, Range{"mxfp8_e4m3", -124, 119}, Range{"mxfp6_e3m2", -127, 123},
        Range{"mxfp6_e2m3", -127, 125}, Range{"mxfp4_e2m1", -127, 125}, Range{"mxint8", -127, 126}}) {
    const ElementFormat e = named(name);
    const auto exact = [&](int scale) {
      for (uint32_t code = 0; code < 1U << e.bits(); ++code) {
        const float element = decode(e, code);
        if (!std::isfinite(element)) continue;
        const float value = scale_by(element, scale);
        if (static_cast<double>(value) != std::ldexp(static_cast<double>(element), scale)) return false;
        if (to_float(to_bfloat16(value)) != value) return false;
      }
      return true;
    };
    for (int scale = low; scale <= high; ++scale) ASSERT_TRUE(exact(scale)) << name << " " << scale;
    if (low > -127) {
      EXPECT_FALSE(exact(low - 1)) << name;
    }
    EXPECT_FALSE(exact(high + 1)) << name;
  }
}

}  // namespace
}  // namespace mxlm::mx
