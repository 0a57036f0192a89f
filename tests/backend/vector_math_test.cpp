// Exponentials against float64, in units in the last place of the float32 result.

#include "backend/cpu/vector_math.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "backend/cpu/isa.hpp"
#include "backend/cpu/simd/math.hpp"

namespace mxlm::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double ulps(float got, double want) {
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) == std::isnan(got) ? 0 : 1e9;
  const auto rounded = static_cast<float>(want);
  if (std::isinf(rounded) || std::isinf(got)) return rounded == got ? 0 : 1e9;
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::abs(got - want) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

using Lanes = std::array<float, 16>;
enum class Function { exp, exp_nonpositive, exp2_sum, silu, sigmoid, tanh, erfc };

MXLM_TARGET_AVX512 void avx512_lanes(Function f, const Lanes& x, Lanes& y) {
  using namespace avx512;
  const Floats v = load(x.data());
  switch (f) {
    case Function::exp:
      return store(y.data(), avx512::exp(v));
    case Function::exp_nonpositive:
      return store(y.data(), avx512::exp_nonpositive(v));
    case Function::exp2_sum:
      return store(y.data(), avx512::exp2_sum(v));
    case Function::silu:
      return store(y.data(), avx512::silu(v));
    case Function::sigmoid:
      return store(y.data(), avx512::sigmoid(v));
    case Function::tanh:
      return store(y.data(), avx512::tanh(v));
    case Function::erfc:
      return store(y.data(), avx512::erfc(v));
  }
}

MXLM_TARGET_AVX2 void avx2_lanes(Function f, const Lanes& x, Lanes& y) {
  using namespace avx2;
  const Floats v = load(x.data());
  switch (f) {
    case Function::exp:
      return store(y.data(), avx2::exp(v));
    case Function::exp_nonpositive:
      return store(y.data(), avx2::exp_nonpositive(v));
    case Function::exp2_sum:
      return store(y.data(), avx2::exp2_sum(v));
    case Function::silu:
      return store(y.data(), avx2::silu(v));
    case Function::sigmoid:
      return store(y.data(), avx2::sigmoid(v));
    case Function::tanh:
      return store(y.data(), avx2::tanh(v));
    case Function::erfc:
      return store(y.data(), avx2::erfc(v));
  }
}

void portable_lanes(Function f, const Lanes& x, Lanes& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    switch (f) {
      case Function::exp:
      case Function::exp_nonpositive:
        y[i] = exp_portable(x[i]);
        break;
      case Function::exp2_sum:
        y[i] = exp2_sum_portable(x[i]);
        break;
      case Function::silu:
        y[i] = silu_portable(x[i]);
        break;
      case Function::sigmoid:
        y[i] = sigmoid_portable(x[i]);
        break;
      case Function::tanh:
        y[i] = tanh_portable(x[i]);
        break;
      case Function::erfc:
        y[i] = erfc_portable(x[i]);
        break;
    }
  }
}

void compute(Isa isa, Function f, const Lanes& x, Lanes& y) {
  if (isa >= Isa::avx512) return avx512_lanes(f, x, y);
  if (isa == Isa::avx2) return avx2_lanes(f, x, y);
  portable_lanes(f, x, y);
}

double exact(Function f, double x) {
  switch (f) {
    case Function::exp2_sum:
      return std::exp2(x);
    case Function::silu:
      return x / (1 + std::exp(-x));
    case Function::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Function::tanh:
      return std::tanh(x);
    case Function::erfc:
      return std::erfc(x);
    default:
      return std::exp(x);
  }
}

/// The worst error over every 5,003rd float32 of [low, high] and over NaNs.
double worst(Isa isa, Function f, float low, float high) {
  double result = 0;
  Lanes x{};
  Lanes y{};
  size_t count = 0;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 5003) {
    const auto v = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (v < low || v > high) continue;
    x[count++] = v;
    if (count < x.size()) continue;
    count = 0;
    compute(isa, f, x, y);
    for (size_t i = 0; i < x.size(); ++i) {
      const double d = x[i];
      const double want = exact(f, d);
      result = std::max(result, ulps(y[i], want));
    }
  }
  return result;
}

std::array<Isa, 3> isas() {
  return {Isa::portable, std::min(Isa::avx2, detect_isa()), std::min(Isa::avx512, detect_isa())};
}

TEST(VectorMath, StaysWithinItsBounds) {
  for (const Isa isa : isas()) {
    EXPECT_LE(worst(isa, Function::exp, -kInfinity, kInfinity), isa == Isa::portable ? 2 : 1);
    EXPECT_LE(worst(isa, Function::exp_nonpositive, -kInfinity, 0), isa == Isa::portable ? 2 : 1);
    EXPECT_LE(worst(isa, Function::exp2_sum, -1e30F, 0), isa == Isa::portable ? 2 : 1);
    EXPECT_LE(worst(isa, Function::silu, -87, kInfinity), 4);
    EXPECT_LE(worst(isa, Function::sigmoid, -87, kInfinity), 3);
    EXPECT_LE(worst(isa, Function::tanh, -kInfinity, kInfinity), 2);
    // z^2 is off by up to 2^-24 z^2, and so is the exponential.
    EXPECT_LE(worst(isa, Function::erfc, 0, 1), 8);
    EXPECT_LE(worst(isa, Function::erfc, 0, 9), 8 + 81);
  }
}

TEST(VectorMath, HandlesTheEndsOfTheRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Lanes x{kInfinity, -kInfinity, nan,    0,    -0.0F,   -104,    -1e30F, 1e30F,
                88.72283F, 88.7229F,   -87.5F, -200, -88.72F, -88.73F, -100,   1};
  for (const Isa isa : isas()) {
    Lanes y{};
    compute(isa, Function::exp, x, y);
    EXPECT_EQ(y[0], kInfinity);
    EXPECT_EQ(y[1], 0);
    EXPECT_TRUE(std::isnan(y[2]));
    EXPECT_EQ(y[3], 1);
    EXPECT_EQ(y[4], 1);
    EXPECT_EQ(y[5], 0);
    EXPECT_EQ(y[6], 0);
    EXPECT_EQ(y[7], kInfinity);
    EXPECT_LT(y[8], kInfinity);
    EXPECT_EQ(y[9], kInfinity);
    EXPECT_GT(y[14], 0);  // a subnormal
    compute(isa, Function::silu, x, y);
    EXPECT_EQ(y[0], kInfinity);
    EXPECT_TRUE(std::isnan(y[1]));  // as x / (1 + e^-x)
    EXPECT_TRUE(std::isnan(y[2]));
    EXPECT_EQ(y[3], 0);
    EXPECT_LT(y[12], 0);
    EXPECT_EQ(y[13], 0);
    EXPECT_EQ(y[11], 0);
  }
}

}  // namespace
}  // namespace mxlm::cpu
