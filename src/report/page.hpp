#pragma once

// The outputs that are made of result files: page, CSV and Markdown.

#include <string>

#include "report/record.hpp"
#include "report/text_layout.hpp"

namespace mxlm::report {

/// One self-contained HTML page. It sends no request (its Content-Security-Policy allows only its own style and script)
/// and works on a phone, in print, and on light and dark screens. Throws Error if it would exceed record.limits, as
/// does render_csv.
std::string render_html(const Record& record);

/// One row per run and variant with every scalar figure in full precision, RFC 4180: a header, CRLF, quotes where
/// needed; empty if a figure is unknown. A command of more than 4096 bytes is in the first row of its run alone.
std::string render_csv(const Record& record, Formulas formulas);
inline std::string render_csv(const Record& record) { return render_csv(record, Formulas::inert); }

/// The main table of each run in GitHub's Markdown.
std::string render_markdown(const Record& record);

}  // namespace mxlm::report
