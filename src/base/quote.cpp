#include "base/quote.hpp"

namespace mxlm {

std::string quote(std::string_view name) {
  constexpr size_t kLongest = 120;
  std::string out = "'";
  for (const char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  if (name.size() > kLongest) out += "...";
  out += "'";
  return out;
}

std::string shell_quote(std::string_view argument) {
  constexpr std::string_view kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=.,/:@%";
  // What starts with '=' is a path's look-up in some shells.
  const bool plain =
      !argument.empty() && argument.find_first_not_of(kPlain) == std::string_view::npos && !argument.starts_with('=');
  if (plain) return std::string(argument);
  std::string out = "'";
  for (const char c : argument) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace mxlm
