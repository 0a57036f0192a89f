#pragma once

#include <cstdint>
#include <string>

namespace mxlm {

/// A value and its uncertainty as text, rounded alike.
struct Measured {
  std::string value;  // "18.8", "n/a"
  std::string error;  // "0.3", "n/a" (not known), "" where value is "n/a"
};

enum class Sign : uint8_t { negative_only, always };

/// `value` down to the last digit that `error` is given with and no further, so that no digit is only noise. An error
/// whose first digit is 1, 2 or 3 has two digits, else one: 18.7738 with error 0.257 is {"18.77", "0.26"}, with 0.457
/// {"18.8", "0.5"}. An unknown (NaN) error leaves two significant digits, an error of zero four.
Measured measured(double value, double error, Sign sign = Sign::negative_only);

/// `value` >= 0 with `significant` digits and thousands separated by commas: 21437 with 3 is "21,400"; with an exponent
/// below 10^-7 and from 10^15 on; "n/a" if not finite.
std::string significant_text(double value, int significant);

/// `value` with that many decimals, with an exponent from 10^7 on; "n/a" if not finite.
std::string decimal_text(double value, int decimals);

/// "3.42 MB", "1.20 GB".
std::string bytes_text(double bytes);

/// A speed to the few percent that timings repeat to: three digits where the first is 1 or 2, else two; "" if it is not
/// above 0.
std::string speed_text(double per_second);

/// "0.8 s", "31 s", "2:05 min", "3:10 h".
std::string seconds_text(double seconds);

/// 42281 is "42,281".
std::string count_text(int64_t value);

}  // namespace mxlm
