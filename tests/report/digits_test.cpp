#include "report/digits.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mxlm {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Digits, EndWhereTheErrorEnds) {
  struct Case {
    double value, error;
    const char *want_value, *want_error;
  };
  const Case cases[] = {
      {18.7738, 0.257, "18.77", "0.26"},
      {18.7738, 0.0257, "18.774", "0.026"},
      {18.7738, 0.0457, "18.77", "0.05"},
      {18.7738, 0.397, "18.8", "0.4"},    // 0.40 with two digits, which begins with 4
      {18.7738, 0.096, "18.77", "0.10"},  // with one digit it would be 0.1
      {18.7738, 2.5, "18.8", "2.5"},
      {18.7738, 31, "19", "31"},
      {18.7738, 260, "20", "260"},
      {18.7738, 600, "0", "600"},
      {152345, 1234, "152300", "1200"},
      {0.00712, 0.00005, "0.00712", "0.00005"},
      {0.996, 0.01, "0.996", "0.010"},
      {1.5e9, 2.3e7, "1.500e+09", "2.3e+07"},
      {9.9996e9, 2.3e7, "1.0000e+10", "2.3e+07"},
      {1.5e9, 2.3e9, "1.5e+09", "2.3e+09"},
      {1.5e3, 2.3e9, "0", "2.3e+09"},
      {1.234e-9, 2e-11, "1.234e-09", "2.0e-11"},
      {-0.004, 0.06, "0.00", "0.06"},
      {-3.21, 0.02, "-3.210", "0.020"},
  };
  for (const Case& c : cases) {
    const Measured m = measured(c.value, c.error);
    EXPECT_EQ(m.value, c.want_value) << c.value << " +- " << c.error;
    EXPECT_EQ(m.error, c.want_error) << c.value << " +- " << c.error;
  }
}

TEST(Digits, AnErrorOfZeroLeavesFourDigits) {
  EXPECT_EQ(measured(3399512345.0, 0).value, "3.4e+09");
  EXPECT_EQ(measured(228.5851, 0, Sign::always).value, "+228.6");
  EXPECT_EQ(measured(228.5851, 0).error, "0");
}

TEST(Digits, TheEndsOfADouble) {
  constexpr double least = 5e-324, most = 1.7e308;
  EXPECT_EQ(significant_text(least, 3), "4.94e-324");
  EXPECT_EQ(significant_text(most, 3), "1.70e+308");
  EXPECT_EQ(significant_text(1.234e-7, 3), "0.000000123");
  for (const double value : {least, most}) {
    for (const double error : {least, most, 0.0, 1.0}) {
      const Measured m = measured(value, error);
      EXPECT_LT(m.value.size() + m.error.size(), 40U) << m.value << " ± " << m.error;
      EXPECT_EQ(m.value.find("inf"), std::string::npos);
      EXPECT_EQ(m.value.find("nan"), std::string::npos);
    }
    EXPECT_LT(decimal_text(value, 5).size(), 12U);
    EXPECT_LT(bytes_text(value).size(), 16U);
  }
}

TEST(Digits, SignsUnknownErrorsAndFiguresThatAreNone) {
  EXPECT_EQ(measured(0.7021, 0.07, Sign::always).value, "+0.70");
  EXPECT_EQ(measured(-0.7021, 0.07, Sign::always).value, "-0.70");
  EXPECT_EQ(measured(0.001, 0.07, Sign::always).value, "0.00");
  EXPECT_EQ(measured(18.7738, kNan).value, "19");
  EXPECT_EQ(measured(18.7738, kNan).error, "n/a");
  EXPECT_EQ(measured(0, 0).value, "0");
  EXPECT_EQ(measured(0, 0).error, "0");
  for (const double value : {kNan, kInf, -kInf}) {
    EXPECT_EQ(measured(value, 1).value, "n/a");
    EXPECT_EQ(measured(value, 1).error, "");
  }
  EXPECT_EQ(measured(2, kInf).error, "n/a");
}

TEST(Digits, SignificantDigitsAndCommas) {
  EXPECT_EQ(significant_text(21437, 3), "21,400");
  EXPECT_EQ(significant_text(999.6, 3), "1,000");
  EXPECT_EQ(significant_text(11.79, 3), "11.8");
  EXPECT_EQ(significant_text(0.01234, 2), "0.012");
  EXPECT_EQ(significant_text(1234567, 9), "1,234,567.00");
  EXPECT_EQ(significant_text(0, 3), "0");
  EXPECT_EQ(significant_text(kNan, 3), "n/a");
  EXPECT_EQ(count_text(0), "0");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(42281), "42,281");
  EXPECT_EQ(count_text(-1234567), "-1,234,567");
}

}  // namespace
}  // namespace mxlm
