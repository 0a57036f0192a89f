#include "report/digits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace mxlm {
namespace {

/// A figure outside these bounds is written with an exponent.
constexpr double kLargest = 1e7;
constexpr int kMostDecimals = 7;

/// The power of ten of the first digit of `x` > 0, after rounding to `significant` digits.
int leading_exponent(double x, int significant) {
  const std::string text = fmt::format("{:.{}e}", x, significant - 1);
  return std::atoi(text.c_str() + text.find('e') + 1);
}

/// The power of ten of the last digit of a figure with this error. An error whose first digit is 1 to 3 keeps two
/// digits, because with one digit it would be off by up to a third.
int error_exponent(double error) {
  const std::string text = fmt::format("{:.1e}", error);
  const int exponent = leading_exponent(error, 2);
  const bool grows = leading_exponent(error, 1) > exponent;  // 0.096 is 0.1 with one digit, so 0.10
  return grows || text[0] <= '3' ? exponent - (grows ? 0 : 1) : exponent;
}

/// `x` down to the digit of 10^exponent, without an exponent.
std::string fixed_text(double x, int exponent) {
  if (exponent <= 0) return fmt::format("{:.{}f}", x, -exponent);
  const double unit = std::pow(10.0, exponent);
  return fmt::format("{:.0f}", std::round(x / unit) * unit);
}

std::string scientific_text(double x, int exponent) {
  const double unit = std::pow(10.0, exponent);
  double rounded = std::round(x / unit) * unit;
  if (!std::isfinite(rounded)) rounded = x;  // x / unit exceeds a double
  if (rounded == 0) return "0";
  constexpr int all_digits = 16;
  const int digits = leading_exponent(std::abs(rounded), all_digits) - exponent;
  return fmt::format("{:.{}e}", rounded, std::clamp(digits, 0, all_digits));
}

std::string with_sign(std::string text, Sign sign) {
  const bool zero = text.find_first_of("123456789") == std::string::npos;
  if (zero && text.starts_with('-')) text.erase(0, 1);
  if (!zero && sign == Sign::always && !text.starts_with('-')) text.insert(0, 1, '+');
  return text;
}

std::string with_commas(std::string digits) {
  const size_t end = std::min(digits.find('.'), digits.size());
  const size_t begin = digits.starts_with('-') ? 1 : 0;
  for (size_t place = end; place > begin + 3;) {
    place -= 3;
    digits.insert(place, 1, ',');
  }
  return digits;
}

}  // namespace

Measured measured(double value, double error, Sign sign) {
  if (!std::isfinite(value)) return {.value = "n/a", .error = ""};
  if (!std::isfinite(error)) return {.value = with_sign(fmt::format("{:.2g}", value), sign), .error = "n/a"};
  if (error <= 0) return {.value = with_sign(fmt::format("{:.4g}", value), sign), .error = "0"};
  const int exponent = error_exponent(error);
  const bool scientific = std::abs(value) >= kLargest || error >= kLargest || -exponent > kMostDecimals;
  const auto text = [&](double x) { return scientific ? scientific_text(x, exponent) : fixed_text(x, exponent); };
  return {.value = with_sign(text(value), sign), .error = text(error)};
}

std::string significant_text(double value, int significant) {
  if (!std::isfinite(value)) return "n/a";
  if (value == 0) return "0";
  constexpr double kMostDigits = 1e15, kLeast = 1e-7;
  if (std::abs(value) >= kMostDigits || std::abs(value) < kLeast) return fmt::format("{:.{}e}", value, significant - 1);
  return with_commas(fixed_text(value, leading_exponent(std::abs(value), significant) - significant + 1));
}

std::string decimal_text(double value, int decimals) {
  if (!std::isfinite(value)) return "n/a";
  return std::abs(value) < kLargest ? fmt::format("{:.{}f}", value, decimals) : fmt::format("{:.3g}", value);
}

std::string bytes_text(double bytes) {
  constexpr double mega = 1e6, giga = 1e9;
  return bytes < giga ? significant_text(bytes / mega, 3) + " MB" : significant_text(bytes / giga, 3) + " GB";
}

std::string speed_text(double per_second) {
  if (!(per_second > 0)) return {};
  const char first = fmt::format("{:.2e}", per_second).front();
  return significant_text(per_second, first <= '2' ? 3 : 2);
}

std::string seconds_text(double seconds) {
  constexpr double kLongest = 1e12;
  if (!(seconds < kLongest)) return "n/a";
  if (seconds < 120) return fmt::format("{:.{}f} s", seconds, seconds < 10 ? 1 : 0);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 7200) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

std::string count_text(int64_t value) { return with_commas(fmt::format("{}", value)); }

}  // namespace mxlm
