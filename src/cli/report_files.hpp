#pragma once

#include <string>

#include "report/record.hpp"

namespace mxlm::cli {

/// Where `eval` and `report` write views of a result; "" is nowhere, "-" stdout.
struct ReportFiles {
  std::string html, csv, markdown;
  [[nodiscard]] bool any() const { return !html.empty() || !csv.empty() || !markdown.empty(); }
  /// How many of them go to stdout.
  [[nodiscard]] int to_stdout() const {
    return (html == "-" ? 1 : 0) + (csv == "-" ? 1 : 0) + (markdown == "-" ? 1 : 0);
  }
};

class Attempts;

/// Writes them, each in spite of the others.
void write_reports(const report::Record& record, const ReportFiles& files, Attempts& attempts);

}  // namespace mxlm::cli
