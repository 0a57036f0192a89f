#include "report/text_layout.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>

namespace mxlm {
namespace {

bool begins_code_point(char c) { return (c & 0xC0) != 0x80; }

/// True for "-1.5e-05" and the like, which no spreadsheet turns into anything else.
bool is_number(std::string_view text) {
  double number = 0;
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return !text.empty() && error != std::errc::invalid_argument && end == text.data() + text.size();
}

/// True for text that a spreadsheet takes for a formula: it begins with one of the signs of formulas (also in East
/// Asian full width, and after trimmed characters) or holds control characters that end its field.
bool begins_formula(std::string_view text) {
  if (is_number(text)) return false;
  const size_t begin = text.find_first_not_of(" '\"");
  if (begin == std::string_view::npos) return false;
  text.remove_prefix(begin);
  constexpr std::array<std::string_view, 4> kFullWidth = {"\uFF1D", "\uFF0B", "\uFF0D", "\uFF20"};
  return std::string_view("=+-@\t\r\n").find(text.front()) != std::string_view::npos ||
         std::any_of(kFullWidth.begin(), kFullWidth.end(),
                     [&](std::string_view sign) { return text.starts_with(sign); });
}

}  // namespace

std::string_view take_columns(std::string_view& text, size_t columns) {
  size_t bytes = 0;
  while (bytes < text.size() && (columns > 0 || !begins_code_point(text[bytes]))) {
    if (begins_code_point(text[bytes])) --columns;
    ++bytes;
  }
  const std::string_view head = text.substr(0, bytes);
  text.remove_prefix(bytes);
  return head;
}

size_t text_width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), begins_code_point));
}

std::string pad_right(std::string_view text, size_t columns) {
  const size_t taken = text_width(text);
  return std::string(text) + std::string(columns > taken ? columns - taken : 0, ' ');
}

std::string pad_left(std::string_view text, size_t columns) {
  const size_t taken = text_width(text);
  return std::string(columns > taken ? columns - taken : 0, ' ') + std::string(text);
}

std::string elide_left(std::string_view text, size_t columns) {
  const size_t taken = text_width(text);
  if (taken <= columns) return std::string(text);
  take_columns(text, taken - columns + 1);
  return "…" + std::string(text);
}

std::string wrapped(std::string_view text) {
  constexpr size_t indent = 2;
  std::string out;
  size_t column = 0;
  bool begun = false;  // the line has a word
  const auto new_line = [&] {
    out.append(1, '\n').append(indent, ' ');
    column = indent;
    begun = false;
  };
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (begun && column + 1 + text_width(word) > kTerminalWidth && indent + text_width(word) <= kTerminalWidth) {
      new_line();
    }
    if (begun) {
      out += ' ';
      ++column;
    }
    while (column + text_width(word) > kTerminalWidth) {  // a word longer than a line
      out += take_columns(word, kTerminalWidth - column);
      new_line();
    }
    out += word;
    column += text_width(word);
    begun = true;
  }
  return out + '\n';
}

std::string csv_field(std::string_view text, Formulas formulas) {
  const std::string_view mark = formulas == Formulas::inert && begins_formula(text) ? "'" : "";
  if (text.find_first_of(",;\"\r\n\t") == std::string_view::npos) return std::string(mark).append(text);
  std::string out = "\"";
  out += mark;
  for (const char c : text) out.append(c == '"' ? 2 : 1, c);
  return out + '"';
}

}  // namespace mxlm
