#pragma once

// The files that show results: page, CSV and Markdown.

#include <string>

#include "report/record.hpp"
#include "report/text_layout.hpp"

namespace mxlm::cli {

/// The paths for the views of a result. "" = no such view, "-" = stdout.
struct ReportFiles {
  std::string html, csv, markdown;
  bool csv_raw = false;  // for all CSV files of the command
  [[nodiscard]] Formulas formulas() const { return csv_raw ? Formulas::raw : Formulas::inert; }
  [[nodiscard]] bool any() const { return !html.empty() || !csv.empty() || !markdown.empty(); }
  /// The number of views that go to stdout.
  [[nodiscard]] int to_stdout() const {
    return (html == "-" ? 1 : 0) + (csv == "-" ? 1 : 0) + (markdown == "-" ? 1 : 0);
  }
};

class Attempts;

/// Writes all views of `files`; a failure of one does not stop the others.
void write_reports(const report::Record& record, const ReportFiles& files, Attempts& attempts);

inline constexpr const char* kCsvRawHelp =
    "In CSV files: leave names that a spreadsheet would compute as they are, without an apostrophe";

}  // namespace mxlm::cli
