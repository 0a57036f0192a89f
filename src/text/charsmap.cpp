#include "text/charsmap.hpp"

#include "base/error.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// Returns nullopt if `text` is not base64.
std::optional<std::string> bytes_of_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool padded = i + padding >= text.size();
    const size_t digit = padded ? 0 : kDigits.find(text[i]);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 3) continue;
    const unsigned bytes = padded ? 3 - static_cast<unsigned>(padding) : 3;
    for (unsigned b = 0; b < bytes; ++b) out += static_cast<char>(bits >> (16 - 8 * b) & 0xffU);
    bits = 0;
  }
  return out;
}

uint32_t little_endian(std::string_view bytes) {
  uint32_t out = 0;
  for (size_t i = 4; i-- > 0;) out = out << 8 | static_cast<unsigned char>(bytes[i]);
  return out;
}

[[noreturn]] void bad_charsmap() {
  fail("the tokenizer's precompiled_charsmap points outside itself; get the tokenizer's files again");
}

// A unit of the trie, in the layout of Darts-clone.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1U) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7fffffffU; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000ffU; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200U) >> 6); }

}  // namespace

Charsmap Charsmap::from_json(const Json& json) {
  const auto bytes = bytes_of_base64(json.string());
  if (!bytes) fail("{}: this is not base64", json.where);
  const std::string_view all = *bytes;
  const uint64_t trie = all.size() < 4 ? 0 : little_endian(all);
  if (trie == 0 || trie % 4 != 0 || trie > all.size() - 4) {
    fail("{}: its table of characters is not whole; get the file again.", json.where);
  }
  Charsmap out;
  out.units_.reserve(trie / 4);
  for (size_t at = 4; at < 4 + trie; at += 4) out.units_.push_back(little_endian(all.substr(at, 4)));
  out.replacements_ = all.substr(4 + trie);
  if (!valid_utf8(out.replacements_)) fail("{}: its replacements are no UTF-8; get the file again.", json.where);
  return out;
}

std::optional<std::string_view> Charsmap::find(std::string_view text) const {
  // Each step takes a byte of the text, so the search ends in a trie of any shape; offsets are checked.
  size_t node = offset_of(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) return std::nullopt;
    node ^= byte;
    if (node >= units_.size()) bad_charsmap();
    const uint32_t unit = units_[node];
    if (label_of(unit) != byte) return std::nullopt;
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) bad_charsmap();
    const size_t begin = value_of(units_[node]);
    if (begin > replacements_.size() ||
        (begin < replacements_.size() && (static_cast<unsigned char>(replacements_[begin]) & 0xc0U) == 0x80)) {
      bad_charsmap();
    }
    const std::string_view rest = std::string_view(replacements_).substr(begin);
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

}  // namespace mxlm::text
