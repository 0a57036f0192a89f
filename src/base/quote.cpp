#include "base/quote.hpp"

#include <array>

namespace mxlm {
namespace {

std::string without_disruption(std::string_view text, std::string_view kept) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character c = first_character(text);
    if (disrupts_text(c.code) && kept.find(text.front()) == std::string_view::npos) {
      out += '?';
    } else {
      out += text.substr(0, c.bytes);
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

/// The largest number of bytes, up to `most` < text.size(), that ends at the end of a character.
size_t whole_characters(std::string_view text, size_t most) {
  while (most > 0 && (text[most] & 0xC0) == 0x80) --most;
  return most;
}

}  // namespace

Character first_character(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {.code = lead, .bytes = 1};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return {};
  char32_t code = lead & (0x7FU >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3FU);
  }
  constexpr std::array<char32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};  // by length; smaller codes are overlong
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < kLeast[bytes] || code > 0x10FFFF || surrogate) return {};
  return {.code = code, .bytes = bytes};
}

bool disrupts_text(char32_t code) {
  const auto in = [code](char32_t first, char32_t last) { return code >= first && code <= last; };
  return code == Character::kInvalid || code < 0x20 || in(0x7F, 0x9F) || in(0x2028, 0x2029) || in(0x202A, 0x202E) ||
         in(0x2066, 0x2069) || in(0x200E, 0x200F) || code == 0x061C || code == 0xFEFF;
}

std::string printable_text(std::string_view text) { return without_disruption(text, ""); }

std::string printable_lines(std::string_view text) { return without_disruption(text, "\n\t"); }

std::string quote(std::string_view name) {
  constexpr size_t kLongest = 120;
  std::string out = "'";
  if (name.size() <= kLongest) {
    out += printable_text(name);
  } else {
    out += printable_text(name.substr(0, whole_characters(name, kLongest)));
    out += "...";
  }
  out += '\'';
  return out;
}

std::string message_text(std::string_view text) {
  constexpr size_t kLongest = 4096;
  if (text.size() <= kLongest) return printable_text(text);
  return printable_text(text.substr(0, whole_characters(text, kLongest))) + "...";
}

std::string shell_quote(std::string_view argument) {
  constexpr std::string_view kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=.,/:@%";
  // Some shells look up a word that starts with '=' in the path.
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
