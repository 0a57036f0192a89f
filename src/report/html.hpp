#pragma once

// Small pieces of HTML and SVG. All text from outside goes through escape().

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "report/digits.hpp"
#include "report/record.hpp"

namespace mxlm::report {

/// `text` for element content and quoted attributes: no character is markup, and U+FFFD replaces what disrupts_text
/// names, except newlines and tabs.
std::string escape(std::string_view text);

/// `text` (the name of a variant, a model or a tensor), escaped, with places where a line may break: after commas,
/// before '/' and '@', and in tables after '='.
std::string breakable(std::string_view text);

/// The shortest digits that read back as `value`; "" if it is not finite.
std::string exact(double value);

/// The member that a figure comes from: a file's number and a JSON pointer, "0:/runs/0/variants/1/ppl". Every figure of
/// the page carries it, so that a test can compare the page with the JSON.
struct Source {
  std::string pointer;
  [[nodiscard]] Source operator/(std::string_view member) const { return {pointer + "/" + std::string(member)}; }
  [[nodiscard]] Source operator/(size_t index) const { return {pointer + "/" + std::to_string(index)}; }
};
Source source(const Run& run);

/// ` data-j="POINTER" data-v="VALUE"`; a value that is not finite has no data-v.
std::string attributes(const Source& source, double value);

/// A value and the member that it comes from.
struct Figure {
  Source source;
  double value = std::nan("");
};

/// Two table cells, value and error, aligned at the ± between them: value * scale + offset and error * error_scale,
/// with the digits that the error allows. Both cells are empty without a value.
struct ShownFigure {
  Figure value, error;
  double scale = 1, offset = 0, error_scale = 1;
  Sign sign = Sign::negative_only;
};
std::string measured_cells(const ShownFigure& shown);
/// The same as text without line breaks: "18.8 ± 0.3".
std::string measured_text(const ShownFigure& shown);

/// A table cell with `text` in place of a figure.
std::string figure_cell(const Figure& figure, const std::string& text);
/// An empty table cell, sorted last.
std::string empty_cell(int columns = 1);

/// Replaces '-' before a digit by a minus sign.
std::string with_minus(std::string text);

/// A cell of a table head: sortable, over `columns` columns; `title` explains it. Both strings are our own markup.
struct Column {
  std::string label = {}, title = {};
  int columns = 1;
  bool number = true;
};
/// `<div class=scroll><table ...><caption>..</caption><thead>...` up to and with `<tbody>`.
std::string table_open(const std::string& caption, const std::vector<Column>& columns, const std::string& classes = "");
std::string table_close();

/// A collapsed section. `summary` is markup.
std::string details(const std::string& summary, const std::string& content, const std::string& classes = "");

/// "1 window", "2 windows", "1,000 windows".
std::string plural(int64_t count, const char* noun);

/// `text` with at most `columns` code points; a longer text ends with an ellipsis.
std::string shorten(std::string_view text, size_t columns);

}  // namespace mxlm::report
