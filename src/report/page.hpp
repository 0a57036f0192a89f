#pragma once

#include <string>

#include "report/record.hpp"

namespace mxlm::report {

/// One self-contained HTML page: no request leaves it (its Content-Security-Policy allows only its own style and
/// script), it reads on a phone, in print, on light and dark.
std::string render_html(const Record& record);

/// One row a run and variant with every scalar figure in full precision, RFC 4180: a header, CRLF, quotes where needed,
/// empty where a figure is not known.
std::string render_csv(const Record& record);

/// The main table of each run in GitHub's Markdown.
std::string render_markdown(const Record& record);

}  // namespace mxlm::report
