#include "report/html.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/quote.hpp"

namespace mxlm::report {
namespace {

Measured measure(const ShownFigure& shown) {
  return measured(shown.value.value * shown.scale + shown.offset, shown.error.value * shown.error_scale, shown.sign);
}

}  // namespace

std::string escape(std::string_view text) {
  constexpr std::string_view kReplacement = "\uFFFD";
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character c = first_character(text);
    if (c.code == '&') {
      out += "&amp;";
    } else if (c.code == '<') {
      out += "&lt;";
    } else if (c.code == '>') {
      out += "&gt;";
    } else if (c.code == '"') {
      out += "&quot;";
    } else if (c.code == '\'') {
      out += "&#39;";
    } else if (disrupts_text(c.code) && c.code != '\n' && c.code != '\t') {
      out += kReplacement;
    } else {
      out += text.substr(0, c.bytes);
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

std::string breakable(std::string_view text) {
  std::string out;
  size_t begin = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    const char before = text[i - 1], here = text[i];
    if (before != ',' && before != '=' && here != '/' && here != '@') continue;
    out += escape(text.substr(begin, i - begin)) + (before == '=' ? "<wbr class=\"eq\">" : "<wbr>");
    begin = i;
  }
  return out + escape(text.substr(begin));
}

std::string exact(double value) { return std::isfinite(value) ? fmt::format("{}", value) : std::string{}; }

Source source(const Run& run) { return {fmt::format("{}:/runs/{}", run.file, run.index)}; }

std::string attributes(const Source& from, double value) {
  std::string out = fmt::format(R"( data-j="{}")", from.pointer);
  if (std::isfinite(value)) out += fmt::format(R"( data-v="{}")", exact(value));
  return out;
}

std::string with_minus(std::string text) {
  for (size_t at = text.find('-'); at != std::string::npos; at = text.find('-', at + 1)) {
    if (at + 1 < text.size() && text[at + 1] >= '0' && text[at + 1] <= '9') text.replace(at, 1, "\u2212");
  }
  return text;
}

std::string figure_cell(const Figure& figure, const std::string& text) {
  const std::string title = std::isfinite(figure.value) ? fmt::format(R"( title="{}")", exact(figure.value)) : "";
  return fmt::format(R"(<td class="n"{}{}>{}</td>)", attributes(figure.source, figure.value), title,
                     with_minus(escape(text)));
}

std::string measured_cells(const ShownFigure& shown) {
  const Measured m = measure(shown);
  std::string out = figure_cell(shown.value, m.value);
  if (m.error.empty()) return out + R"(<td class="e"></td>)";
  return out + fmt::format(R"(<td class="e"{}>± {}</td>)", attributes(shown.error.source, shown.error.value), m.error);
}

std::string measured_text(const ShownFigure& shown) {
  const Measured m = measure(shown);
  std::string out =
      fmt::format("<span{}>{}</span>", attributes(shown.value.source, shown.value.value), with_minus(m.value));
  if (!m.error.empty() && m.error != "n/a") {
    out += fmt::format("\u00a0±\u00a0<span{}>{}</span>", attributes(shown.error.source, shown.error.value), m.error);
  }
  return out;
}

std::string empty_cell(int columns) {
  return columns == 1 ? R"(<td class="n"></td>)" : fmt::format(R"(<td class="n" colspan="{}"></td>)", columns);
}

std::string table_open(const std::string& caption, const std::vector<Column>& columns, const std::string& classes) {
  int width = 0;
  for (const Column& column : columns) width += column.columns;
  constexpr int kWide = 16;  // more columns do not fit on paper
  std::string out =
      fmt::format(R"(<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="{}{}">)",
                  escape(caption), classes, width > kWide ? " wide" : "");
  out += fmt::format("<caption>{}</caption><thead><tr>", escape(caption));
  int first = 0;
  for (const Column& column : columns) {
    out += fmt::format(R"(<th scope="col" class="{}" data-c="{}"{}{}><span class="h">{}</span></th>)",
                       column.number ? "n" : "t", first,
                       column.columns > 1 ? fmt::format(R"( colspan="{}")", column.columns) : "",
                       column.title.empty() ? "" : fmt::format(R"( title="{}")", escape(column.title)), column.label);
    first += column.columns;
  }
  return out + "</tr></thead><tbody>\n";
}

std::string table_close() { return "</tbody></table></div>\n"; }

std::string details(const std::string& summary, const std::string& content, const std::string& classes) {
  return fmt::format("<details class=\"{}\"><summary>{}</summary>\n<div class=\"inside\">{}</div></details>\n", classes,
                     summary, content);
}

std::string plural(int64_t count, const char* noun) {
  return fmt::format("{} {}{}", count_text(count), noun, count == 1 ? "" : "s");
}

std::string shorten(std::string_view text, size_t columns) {
  size_t bytes = 0, taken = 0, cut = 0;  // cut: the offset after columns - 1 code points
  while (bytes < text.size()) {
    if ((text[bytes] & 0xC0) != 0x80) {
      if (taken + 1 == columns) cut = bytes;
      if (taken == columns) return std::string(text.substr(0, cut)) + "…";
      ++taken;
    }
    ++bytes;
  }
  return std::string(text);
}

}  // namespace mxlm::report
