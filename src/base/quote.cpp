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

}  // namespace mxlm
