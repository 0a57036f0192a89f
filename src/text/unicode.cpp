#include "text/unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <vector>

#include "base/error.hpp"

namespace mxlm::text {
namespace {

#include "text/unicode_tables.inc"

/// Values of code points in two levels of blocks of 256, made from the ranges of the generated table.
class BlockTable {
 public:
  explicit BlockTable(std::span<const uint32_t> starts) {
    std::vector<uint8_t> block(256);
    size_t range = 0;
    for (uint32_t c = 0; c < 0x110000; ++c) {
      while (range + 1 < starts.size() && starts[range + 1] >> 8 <= c) ++range;
      block[c & 0xff] = static_cast<uint8_t>(starts[range] & 0xff);
      if ((c & 0xff) != 0xff) continue;
      const size_t blocks = values_.size() / 256;
      size_t same = blocks;
      // Long uniform stretches repeat the block before them; other blocks are rare.
      for (size_t b = blocks; b-- > 0 && same == blocks;) {
        if (std::equal(block.begin(), block.end(), values_.begin() + static_cast<ptrdiff_t>(b * 256))) same = b;
      }
      if (same == blocks) values_.insert(values_.end(), block.begin(), block.end());
      index_[c >> 8] = static_cast<uint16_t>(same);
    }
  }
  [[nodiscard]] uint8_t operator[](uint32_t c) const { return values_[index_[c >> 8] * 256U + (c & 0xffU)]; }

 private:
  std::array<uint16_t, 0x1100> index_{};
  std::vector<uint8_t> values_;
};

bool in_ranges(std::span<const uint32_t> ranges, uint32_t c) {
  for (size_t i = 0; i + 1 < ranges.size(); i += 2) {
    if (c >= ranges[i] && c <= ranges[i + 1]) return true;
  }
  return false;
}

const BlockTable& categories() {
  static const BlockTable table(kCategoryStarts);
  return table;
}

constexpr uint8_t kKnown = 1;  // it takes part in normalisation

uint8_t not_inert(NormalizationForm form) { return static_cast<uint8_t>(2U << static_cast<unsigned>(form)); }

/// Appends the normal form of a short run of code points.
void normalize_run(std::string_view run, NormalizationForm form, std::string& out) {
  unsigned options = UTF8PROC_STABLE;
  options |= form == NormalizationForm::nfc || form == NormalizationForm::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalizationForm::nfkc || form == NormalizationForm::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(run.data()), static_cast<utf8proc_ssize_t>(run.size()),
                   &result, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(result, std::free);
  if (size < 0) fail("Unicode normalisation failed ({}); is the text valid UTF-8?", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
}

/// The length of the well-formed sequence at bytes[at], or 0; then `bad` is the size of the maximal invalid part.
size_t sequence_at(std::string_view bytes, size_t at, size_t& bad) {
  const auto byte = [&](size_t i) {
    return at + i < bytes.size() ? static_cast<unsigned>(static_cast<unsigned char>(bytes[at + i])) : 0U;
  };
  const unsigned b = byte(0);
  bad = 1;
  if (b < 0x80) return 1;
  if (b < 0xc2 || b > 0xf4) return 0;
  unsigned low = 0x80;
  unsigned high = 0xbf;
  if (b == 0xe0) low = 0xa0;
  if (b == 0xed) high = 0x9f;
  if (b == 0xf0) low = 0x90;
  if (b == 0xf4) high = 0x8f;
  const size_t size = b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < size; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) {
      bad = i;
      return 0;
    }
  }
  return size;
}

}  // namespace

Category category_of(uint32_t c) { return static_cast<Category>(categories()[c]); }

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_word(uint32_t c) {
  const Category k = category_of(c);
  return is_letter(k) || is_mark(k) || k == Category::Nd || k == Category::Nl || k == Category::Pc ||
         k == Category::So_alphabetic || c == 0x200c || c == 0x200d;
}

bool is_numeric(uint32_t c) { return is_number(category_of(c)) || in_ranges(kNumericInRustOnly, c); }

bool has_property(uint32_t c, OldProperty property) {
  static const BlockTable flags(kOldPropertyStarts);
  return (flags[c] & static_cast<uint8_t>(property)) != 0;
}

uint32_t to_lower(uint32_t c) {
  for (size_t i = 0; i + 1 < std::size(kNewerLowerCase); i += 2) {
    if (kNewerLowerCase[i] == c) return kNewerLowerCase[i + 1];
  }
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

Decoded decode_before(std::string_view text, size_t at) {
  size_t begin = at - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0U) == 0x80) --begin;
  return decode_at(text, begin);
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0U | c >> 6);
    out += static_cast<char>(0x80U | (c & 0x3fU));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0U | c >> 12);
    out += static_cast<char>(0x80U | (c >> 6 & 0x3fU));
    out += static_cast<char>(0x80U | (c & 0x3fU));
  } else {
    out += static_cast<char>(0xf0U | c >> 18);
    out += static_cast<char>(0x80U | (c >> 12 & 0x3fU));
    out += static_cast<char>(0x80U | (c >> 6 & 0x3fU));
    out += static_cast<char>(0x80U | (c & 0x3fU));
  }
}

bool valid_utf8(std::string_view text) {
  size_t bad = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t size = sequence_at(text, at, bad);
    if (size == 0) return false;
    at += size;
  }
  return true;
}

std::string lossy_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  size_t bad = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = sequence_at(bytes, at, bad);
    if (size == 0) {
      out += "\xef\xbf\xbd";
      at += bad;
    } else {
      out.append(bytes, at, size);
      at += size;
    }
  }
  return out;
}

bool normalize(std::string_view text, NormalizationForm form, std::string& out) {
  static const BlockTable flags(kNormalizationStarts);
  const uint8_t active = not_inert(form);
  std::string result;
  size_t copied = 0;    // `result` holds text[0, copied)
  size_t previous = 0;  // the start of the code point before `at`
  bool previous_known = false;
  bool changed = false;
  size_t at = 0;
  while (at < text.size()) {
    // Characters below U+0080 never change; the character after one may combine with it.
    const size_t ascii = at;
    while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
    if (at > ascii) {
      previous = at - 1;
      previous_known = true;
      if (at == text.size()) break;
    }
    const Decoded d = decode_at(text, at);
    const uint8_t f = flags[d.code];
    if ((f & active) == 0) {
      previous = at;
      previous_known = (f & kKnown) != 0;
      at += d.size;
      continue;
    }
    const size_t begin = previous_known ? previous : at;
    size_t end = at + d.size;
    while (end < text.size()) {
      const Decoded next = decode_at(text, end);
      if ((flags[next.code] & active) == 0) break;
      end += next.size;
    }
    result.append(text, copied, begin - copied);
    const size_t before = result.size();
    normalize_run(text.substr(begin, end - begin), form, result);
    changed = changed || std::string_view(result).substr(before) != text.substr(begin, end - begin);
    copied = at = end;
    previous_known = false;  // the character that ended the run, if any, is inert, so a new run starts
  }
  if (!changed) return false;
  result.append(text, copied, text.size() - copied);
  out = std::move(result);
  return true;
}

size_t grapheme_end(std::string_view text, size_t at) {
  utf8proc_int32_t state = 0;
  Decoded previous = decode_at(text, at);
  at += previous.size;
  while (at < text.size()) {
    const Decoded next = decode_at(text, at);
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous.code),
                                         static_cast<utf8proc_int32_t>(next.code), &state)) {
      break;
    }
    previous = next;
    at += next.size;
  }
  return at;
}

std::span<const uint32_t> newer_than_pcre2() { return kNewerThanUnicode14; }
std::span<const uint32_t> newer_alphabetic() { return kNewerAlphabetic; }
std::span<const uint32_t> newer_uppercase() { return kNewerUppercase; }
std::span<const uint32_t> newer_lowercase() { return kNewerLowercase; }

}  // namespace mxlm::text
