#pragma once

// The progress line of the program.

#include <chrono>
#include <string>

#include "hub/fetch.hpp"
#include "rounds/progress.hpp"

namespace mxlm::cli {

/// Shows progress on stderr: a line that is redrawn in place on a terminal, a new line every 10 s elsewhere, and
/// nothing if quiet.
class ProgressLine {
 public:
  ProgressLine(std::string what, bool quiet);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void update(const Progress& progress);
  void update(const hub::FetchProgress& progress);

 private:
  [[nodiscard]] bool due();
  void draw(const std::string& text);

  std::string what_;
  bool quiet_, terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
  uint64_t first_bytes_ = 0;  // bytes that were there when a download began
  bool fetching_ = false;
};

}  // namespace mxlm::cli
