#pragma once

#include <string>

#include "report/record.hpp"
#include "report/text_layout.hpp"

namespace mxlm::report {

/// One self-contained HTML page: no request leaves it (its Content-Security-Policy allows only its own style and
/// script), it reads on a phone, in print, on light and dark. Throws Error if it would be larger than record.limits
/// allow; so does render_csv.
std::string render_html(const Record& record);

/// One row a run and variant with every scalar figure in full precision, RFC 4180: a header, CRLF, quotes where needed,
/// empty where a figure is not known. A command of more than 4096 bytes stands in the first row of its run alone.
std::string render_csv(const Record& record, Formulas formulas);
inline std::string render_csv(const Record& record) { return render_csv(record, Formulas::inert); }

/// The main table of each run in GitHub's Markdown.
std::string render_markdown(const Record& record);

}  // namespace mxlm::report
