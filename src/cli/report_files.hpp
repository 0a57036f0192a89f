#pragma once

#include <string>

#include "report/record.hpp"
#include "report/text_layout.hpp"

namespace mxlm::cli {

/// Where `eval` and `report` write views of a result; "" is nowhere, "-" stdout.
struct ReportFiles {
  std::string html, csv, markdown;
  bool csv_raw = false;  // of `csv` and of every other CSV that the command writes
  [[nodiscard]] Formulas formulas() const { return csv_raw ? Formulas::raw : Formulas::inert; }
  [[nodiscard]] bool any() const { return !html.empty() || !csv.empty() || !markdown.empty(); }
  /// How many of them go to stdout.
  [[nodiscard]] int to_stdout() const {
    return (html == "-" ? 1 : 0) + (csv == "-" ? 1 : 0) + (markdown == "-" ? 1 : 0);
  }
};

class Attempts;

/// Writes them, each in spite of the others.
void write_reports(const report::Record& record, const ReportFiles& files, Attempts& attempts);

inline constexpr const char* kCsvRawHelp =
    "In CSV files: leave names that a spreadsheet would compute as they are, without an apostrophe";

}  // namespace mxlm::cli
