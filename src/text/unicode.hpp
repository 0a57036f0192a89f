#pragma once

// Unicode properties as the `tokenizers` library sees them: its categories are Unicode 16, its normalisation is Unicode
// 9. A distribution's utf8proc and PCRE2 have other versions, and token ids depend on the version.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mxlm::text {

/// General categories, in the order of tools/goldens/make_unicode_tables.py. `So_alphabetic`: symbols that \w takes.
enum class Category : uint8_t {
  Lu,
  Ll,
  Lt,
  Lm,
  Lo,
  Mn,
  Mc,
  Me,
  Nd,
  Nl,
  No,
  Pc,
  Pd,
  Ps,
  Pe,
  Pi,
  Pf,
  Po,
  Sm,
  Sc,
  Sk,
  So,
  Zs,
  Zl,
  Zp,
  Cc,
  Cf,
  Co,
  Cn,
  So_alphabetic
};

/// General category of a code point (below 0x110000).
Category category_of(uint32_t c);

constexpr bool is_letter(Category k) { return k <= Category::Lo; }
constexpr bool is_mark(Category k) { return k >= Category::Mn && k <= Category::Me; }
constexpr bool is_number(Category k) { return k >= Category::Nd && k <= Category::No; }

/// White_Space: the characters of \s in the library's regexes and of Rust's char::is_whitespace.
bool is_space(uint32_t c);
/// The characters of \w in Rust's regex crate.
bool is_word(uint32_t c);
/// Rust's char::is_numeric.
bool is_numeric(uint32_t c);

/// Properties that the library takes from crates of other Unicode versions.
enum class OldProperty : uint8_t {
  punctuation = 1,   // cut out by Punctuation and BertPreTokenizer
  mark = 2,          // dropped by StripAccents
  accent = 4,        // dropped by BertNormalizer as an accent
  bert_control = 8,  // dropped by BertNormalizer as a control character
};
bool has_property(uint32_t c, OldProperty property);

/// Rust's char::to_lowercase, except for U+0130, which becomes two characters.
uint32_t to_lower(uint32_t c);

/// A code point and its number of bytes.
struct Decoded {
  uint32_t code;
  uint32_t size;
};
/// Decodes the code point that starts at `text[at]`; `text` is valid UTF-8 and `at` is a boundary inside it.
inline Decoded decode_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const uint32_t b = byte(0);
  if (b < 0x80) return {b, 1};
  if (b < 0xe0) return {(b & 0x1fU) << 6 | (byte(1) & 0x3fU), 2};
  if (b < 0xf0) return {(b & 0x0fU) << 12 | (byte(1) & 0x3fU) << 6 | (byte(2) & 0x3fU), 3};
  return {(b & 0x07U) << 18 | (byte(1) & 0x3fU) << 12 | (byte(2) & 0x3fU) << 6 | (byte(3) & 0x3fU), 4};
}
/// The code point before `text[at]`, at > 0.
Decoded decode_before(std::string_view text, size_t at);
/// Appends a code point as UTF-8.
void append_utf8(std::string& out, uint32_t c);
/// True if `text` is valid UTF-8 (no surrogates, no overlong forms).
bool valid_utf8(std::string_view text);
/// Bytes to text: maximal invalid parts become U+FFFD, as Rust's String::from_utf8_lossy and Python's "replace" do.
std::string lossy_utf8(std::string_view bytes);

/// The end of the grapheme cluster (UAX 29, extended) that starts at `text[at]`; at < text.size().
size_t grapheme_end(std::string_view text, size_t at);

enum class NormalizationForm : uint8_t { nfc, nfd, nfkc, nfkd };

/// The normal form of `text`. Returns false, and does not change `out`, if `text` is already in that form.
bool normalize(std::string_view text, NormalizationForm form, std::string& out);

/// The first and last code point of each range that is assigned here but not in Unicode 14, which PCRE2 10.42 knows.
std::span<const uint32_t> newer_than_pcre2();
/// The ranges among these that have a binary property.
std::span<const uint32_t> newer_alphabetic();
std::span<const uint32_t> newer_uppercase();
std::span<const uint32_t> newer_lowercase();

}  // namespace mxlm::text
