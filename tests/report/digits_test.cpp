#include "report/digits.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mxlm {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Digits, EndAtTheFirstDigitOfTheError) {
  struct Case {
    double value, error;
    const char *want_value, *want_error;
  };
  const Case cases[] = {
      {18.7738, 0.257, "18.8", "0.3"},
      {18.7738, 0.0257, "18.77", "0.03"},
      {18.7738, 0.096, "18.8", "0.1"},  // 0.096 is 0.1, not 0.10
      {18.7738, 2.5, "19", "2"},        // a tie of the error goes to even, as printf does
      {18.7738, 31, "20", "30"},
      {18.7738, 260, "0", "300"},
      {152345, 1234, "152000", "1000"},
      {0.00712, 0.00005, "0.00712", "0.00005"},
      {0.996, 0.01, "1.00", "0.01"},
      {1.5e9, 2.3e7, "1.50e+09", "2e+07"},
      {9.996e9, 2.3e7, "1.000e+10", "2e+07"},
      {1.5e9, 2.3e9, "2e+09", "2e+09"},
      {1.5e3, 2.3e9, "0", "2e+09"},
      {1.234e-9, 2e-11, "1.23e-09", "2e-11"},
      {-0.004, 0.02, "0.00", "0.02"},
      {-3.21, 0.02, "-3.21", "0.02"},
  };
  for (const Case& c : cases) {
    const Measured m = measured(c.value, c.error);
    EXPECT_EQ(m.value, c.want_value) << c.value << " +- " << c.error;
    EXPECT_EQ(m.error, c.want_error) << c.value << " +- " << c.error;
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
