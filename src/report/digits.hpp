#pragma once

// Numbers as text, with as many digits as their errors allow.

#include <cstdint>
#include <string>

namespace mxlm {

/// A value and its uncertainty as text, rounded to the same digit.
struct Measured {
  std::string value;  // "18.8", "n/a"
  std::string error;  // "0.3", "n/a" (not known), "" where value is "n/a"
};

enum class Sign : uint8_t { negative_only, always };

/// Rounds `value` to the last digit of `error`, so that no digit is only noise. An error whose first digit is 1, 2 or 3
/// has two digits, others have one: 18.7738 with error 0.257 is {"18.77", "0.26"}, with 0.457 it is {"18.8", "0.5"}. An
/// unknown (NaN) error leaves two significant digits, an error of zero four.
Measured measured(double value, double error, Sign sign = Sign::negative_only);

/// `value` >= 0 with `significant` digits and commas between thousands: 21437 with 3 is "21,400". An exponent is used
/// below 10^-7 and from 10^15 on; "n/a" if not finite.
std::string significant_text(double value, int significant);

/// `value` with `decimals` decimals, with an exponent from 10^7 on; "n/a" if not finite.
std::string decimal_text(double value, int decimals);

/// "3.42 MB", "1.20 GB".
std::string bytes_text(double bytes);

/// A speed, to the few percent within which timings repeat: three digits if the first is 1 or 2, else two; "" unless
/// above 0.
std::string speed_text(double per_second);

/// "0.8 s", "31 s", "2:05 min", "3:10 h".
std::string seconds_text(double seconds);

/// 42281 is "42,281".
std::string count_text(int64_t value);

}  // namespace mxlm
