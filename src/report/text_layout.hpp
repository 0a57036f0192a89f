#pragma once

// Text for a terminal, measured in code points (nothing wide is printed but by a user's own names).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

constexpr size_t kTerminalWidth = 80;

/// Columns that a text takes.
size_t text_width(std::string_view text);
/// The first `columns` code points of `text` are removed from it and returned.
std::string_view take_columns(std::string_view& text, size_t columns);
/// Padded to `columns`; longer texts stay as they are.
std::string pad_right(std::string_view text, size_t columns);
std::string pad_left(std::string_view text, size_t columns);
/// The end of a text that is too long, after "…".
std::string elide_left(std::string_view text, size_t columns);
/// Words in lines of at most kTerminalWidth columns, later lines indented; ends with a newline.
std::string wrapped(std::string_view text);
/// What a CSV field does about text that a spreadsheet would compute.
enum class Formulas : uint8_t {
  inert,  // an apostrophe stands before it, after which spreadsheets show text as it is
  raw,    // nothing: for programs that read names as they are
};

/// A field of a CSV file (RFC 4180), quoted where it holds a comma, a quote, a line break, or what separates fields
/// elsewhere. With `inert`, text that begins (after spaces and quotes) with what begins a formula is marked; numbers
/// stay numbers.
std::string csv_field(std::string_view text, Formulas formulas = Formulas::inert);

}  // namespace mxlm
