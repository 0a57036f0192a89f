#include <simdjson.h>

#include <cstdint>

#include "io/documents.hpp"

namespace mxlm {
namespace {

struct Lead {
  int length;         // bytes of a sequence that begins with this byte, 0 if there is none
  uint8_t low, high;  // range of its second byte (the Unicode Standard, table 3-7)
};

Lead lead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};  // no surrogates
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

}  // namespace

bool replace_invalid_utf8(std::string_view bytes, std::string& out) {
  if (simdjson::validate_utf8(bytes.data(), bytes.size())) {
    out.assign(bytes);
    return false;
  }
  out.clear();
  out.reserve(bytes.size() + bytes.size() / 8);
  for (size_t i = 0; i < bytes.size();) {
    const auto at = [&](size_t k) { return static_cast<uint8_t>(bytes[k]); };
    const Lead first = lead(at(i));
    int valid = first.length == 0 ? 0 : 1;
    for (uint8_t low = first.low, high = first.high; valid > 0 && valid < first.length;
         ++valid, low = 0x80, high = 0xbf) {
      const size_t next = i + static_cast<size_t>(valid);
      if (next >= bytes.size() || at(next) < low || at(next) > high) break;
    }
    if (first.length != 0 && valid == first.length) {
      out.append(bytes.substr(i, static_cast<size_t>(valid)));
      i += static_cast<size_t>(valid);
    } else {
      // One replacement for the longest prefix that could have begun a character, or for one byte that never could.
      out += "\xef\xbf\xbd";
      i += valid > 0 ? static_cast<size_t>(valid) : 1;
    }
  }
  return true;
}

}  // namespace mxlm
