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

/// Writes them; throws Error naming the first that cannot be written.
void write_reports(const report::Record& record, const ReportFiles& files);
/// The same of a result that has just been written as JSON.
void write_reports(const std::string& json, const ReportFiles& files);

}  // namespace mxlm::cli
