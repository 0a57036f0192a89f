#include "base/json.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <system_error>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

// A list that holds an empty list. No reader accepts it as a number, string, boolean or object, or as a list of these.
constexpr std::string_view kNotFinite = "[[]]";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Whether the word is a number in JSON's grammar.
bool is_number(std::string_view word) {
  size_t i = 0;
  const auto at = [&](size_t k) { return k < word.size() ? word[k] : '\0'; };
  const auto digits = [&] {
    const size_t begin = i;
    while (is_digit(at(i))) ++i;
    return i > begin;
  };
  if (at(i) == '-') ++i;
  if (at(i) == '0' && is_digit(at(i + 1))) return false;
  if (!digits()) return false;
  if (at(i) == '.') {
    ++i;
    if (!digits()) return false;
  }
  if (at(i) == 'e' || at(i) == 'E') {
    ++i;
    if (at(i) == '+' || at(i) == '-') ++i;
    if (!digits()) return false;
  }
  return i == word.size();
}

template <typename T>
bool out_of_range(std::string_view number) {
  T value{};
  return std::from_chars(number.data(), number.data() + number.size(), value).ec == std::errc::result_out_of_range;
}

// Appends a word from outside a string, in a form that simdjson accepts.
void append_word(std::string_view word, std::string& out) {
  const bool integer = word.find_first_of(".eE") == word.npos;
  // from_chars reports a number that is too small in the same way; Python and simdjson both make it 0.
  const bool small = word.find("e-") != word.npos || word.find("E-") != word.npos;
  if (word == "NaN" || word == "Infinity" || word == "-Infinity" ||
      (is_number(word) && !small && out_of_range<double>(word))) {
    out += kNotFinite;
    return;
  }
  out += word;
  const bool wide = out_of_range<int64_t>(word) && (word.starts_with('-') || out_of_range<uint64_t>(word));
  if (is_number(word) && integer && wide) out += ".0";
}

// Replaces the words that Python's json reads and simdjson does not.
std::string rewrite(std::string_view text) {
  const auto in_word = [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' || c == '.';
  };
  std::string out;
  out.reserve(text.size() + kNotFinite.size());
  size_t i = 0;
  while (i < text.size()) {
    const size_t begin = i;
    if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
      }
      i = std::min(i + 1, text.size());
      out += text.substr(begin, i - begin);
    } else if (in_word(text[i])) {
      while (i < text.size() && in_word(text[i])) ++i;
      append_word(text.substr(begin, i - begin), out);
    } else {
      out += text[i++];
    }
  }
  return out;
}

}  // namespace

simdjson::error_code parse_python_json(simdjson::dom::parser& parser, std::string_view text,
                                       simdjson::dom::element& root, size_t depth) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const auto parse = [&](std::string_view json) {
    // allocate() fixes the greatest depth. If the capacity were too small, parse() would allocate again with the
    // default depth.
    const auto error = parser.allocate(json.size() + simdjson::SIMDJSON_PADDING, depth);
    return error != simdjson::SUCCESS ? error : parser.parse(json.data(), json.size()).get(root);
  };
  const auto error = parse(text);
  if (error == simdjson::SUCCESS || error == simdjson::DEPTH_ERROR || error == simdjson::UTF8_ERROR) return error;
  const std::string rewritten = rewrite(text);
  return rewritten == text ? error : parse(rewritten);
}

simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string_view text, const std::string& name,
                                  const char* what, size_t depth) {
  simdjson::dom::element root;
  const auto error = parse_python_json(parser, text, root, depth);
  if (error != simdjson::SUCCESS) {
    fail("{} of {} is not valid JSON ({}); get the file again.", what, quote(name), simdjson::error_message(error));
  }
  return root;
}

bool last_member(const simdjson::dom::object& object, std::string_view key, simdjson::dom::element& value) {
  bool found = false;
  for (const auto [name, member] : object) {
    if (name == key) {
      value = member;
      found = true;
    }
  }
  return found;
}

}  // namespace mxlm
