#pragma once

// Writes the results of a run. A run may take hours, so each output is checked before the run, and after the run a
// failure of one output does not stop the others.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/eval_options.hpp"
#include "cli/per_token.hpp"

namespace mxlm::cli {

/// Actions that run independently: a failure of one does not stop the others.
class Attempts {
 public:
  /// Runs the action. Keeps the text of an exception as a failure, with `what` before it.
  void attempt(std::string_view what, const std::function<void()>& action);
  /// The failures as sentences; empty if all actions succeeded.
  [[nodiscard]] const std::vector<std::string>& failures() const { return failures_; }
  [[nodiscard]] size_t succeeded() const { return succeeded_; }

 private:
  size_t succeeded_ = 0;
  std::vector<std::string> failures_;
};

/// Throws UsageError if two options name the same file or standard output, and Error for the first file that cannot be
/// written. `places` holds options and their paths; a path may be "".
void check_outputs(const std::vector<std::pair<std::string, std::string>>& places);

/// The views of a result that differ between commands.
struct ResultViews {
  std::function<std::string(const EvalResult&)> table;          // for standard output
  std::function<std::string(const EvalResult&, Formulas)> csv;  // null = the CSV of `report`
};

/// The outputs of eval, suite and sweep.
class Outputs {
 public:
  /// Checks all outputs. Borrows `arguments`. Throws Error and UsageError.
  Outputs(const EvalArguments& arguments, size_t models);
  /// Makes an evaluation write the file of --per-token.
  void attach(ResolvedOptions& options) { per_token_.attach(options); }

  /// Writes all files, then the table to standard output unless a file goes there. Then removes automatic journals.
  ///
  /// If outputs failed, throws one Error that names them and says how to get them. Otherwise, if the last run is
  /// incomplete, throws Interrupted or an Error with the reason. Otherwise, if a journal lacks shards, throws Error.
  void write(const EvalResult& result, const ResultViews& views) const;

 private:
  const EvalArguments& arguments_;  // NOLINT(cppcoreguidelines-avoid-const-or-ref-data-members)
  PerTokenFile per_token_;
};

}  // namespace mxlm::cli
