#pragma once

// Text for a terminal, measured in code points (only names of users contain wide characters).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

constexpr size_t kTerminalWidth = 80;

/// The number of columns of a text.
size_t text_width(std::string_view text);
/// Removes the first `columns` code points of `text` and returns them.
std::string_view take_columns(std::string_view& text, size_t columns);
/// Pads to `columns`; longer texts stay as they are.
std::string pad_right(std::string_view text, size_t columns);
std::string pad_left(std::string_view text, size_t columns);
/// The end of a text that is too long, after "…".
std::string elide_left(std::string_view text, size_t columns);
/// Words in lines of at most kTerminalWidth columns, with later lines indented; ends with a newline.
std::string wrapped(std::string_view text);
/// What a CSV field does with text that a spreadsheet would compute.
enum class Formulas : uint8_t {
  inert,  // an apostrophe precedes it, so that spreadsheets show the text as it is
  raw,    // nothing: for programs that read names as they are
};

/// A field of a CSV file (RFC 4180), quoted if it holds a comma, a quote, a line break, or another separator of fields.
/// With `inert`, text that begins like a formula (after spaces and quotes) is marked; numbers stay numbers.
std::string csv_field(std::string_view text, Formulas formulas = Formulas::inert);

}  // namespace mxlm
