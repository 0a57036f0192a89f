#include "statistics/student_t.hpp"

#include <cmath>
#include <limits>
#include <numbers>

namespace mxlm {
namespace {

/// The continued fraction of the incomplete beta function (NIST DLMF 8.17.22) by Lentz's method. It converges fast for
/// x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double tiny = 1e-300, enough = 1e-16;
  constexpr int most_terms = 500;  // about 40 terms are enough
  const auto not_zero = [](double y) { return std::abs(y) < tiny ? tiny : y; };
  double c = 1, d = 1 / not_zero(1 - (a + b) * x / (a + 1)), out = d;
  for (int m = 1; m < most_terms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / not_zero(1 + even * d);
    c = not_zero(1 + even / c);
    out *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / not_zero(1 + odd * d);
    c = not_zero(1 + odd / c);
    out *= d * c;
    if (std::abs(d * c - 1) < enough) break;
  }
  return out;
}

/// The regularised incomplete beta function I_x(a, b). `y` is 1 - x, which callers know more exactly.
double incomplete_beta(double a, double b, double x, double y) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(y));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, y) / b;
}

}  // namespace

double student_p(double size, double degrees) {
  if (!(size >= 0) || !(degrees > 0)) return std::numeric_limits<double>::quiet_NaN();
  if (std::isinf(size)) return 0;
  // Beyond kMany degrees of freedom the two distributions agree to 1e-8, and the difference of lgamma values keeps only
  // a few digits.
  constexpr double kMany = 1e9;
  if (degrees > kMany) return normal_p(size);
  const double square = size * size;
  return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + square), square / (degrees + square));
}

double normal_p(double size) { return std::erfc(size / std::numbers::sqrt2); }

}  // namespace mxlm
