#pragma once

// Where the results of a run go. What was computed may have taken hours, so each place is looked at before the run, and
// each is tried in spite of the others after it.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/eval_options.hpp"
#include "cli/per_token.hpp"

namespace mxlm::cli {

/// Things to be done whatever becomes of the others.
class Attempts {
 public:
  /// Does it; what it throws is kept with `what` before it.
  void attempt(std::string_view what, const std::function<void()>& action);
  /// Sentences; empty if all went well.
  [[nodiscard]] const std::vector<std::string>& failures() const { return failures_; }
  [[nodiscard]] size_t succeeded() const { return succeeded_; }

 private:
  size_t succeeded_ = 0;
  std::vector<std::string> failures_;
};

/// Throws UsageError if two options name the same file or several standard output, and Error for the first that cannot
/// be written. `places`: option and path, which may be "".
void check_outputs(const std::vector<std::pair<std::string, std::string>>& places);

/// Views of a result that a command has of its own.
struct ResultViews {
  std::function<std::string(const EvalResult&)> table;          // for standard output
  std::function<std::string(const EvalResult&, Formulas)> csv;  // null: that of `report`
};

/// The outputs of eval, suite and sweep.
class Outputs {
 public:
  /// Checks all places. `arguments` is borrowed. Throws Error and UsageError.
  Outputs(const EvalArguments& arguments, size_t models);
  /// Makes an evaluation write the tokens of --per-token.
  void attach(ResolvedOptions& options) { per_token_.attach(options); }

  /// Writes all files, then the table to standard output unless a file goes there. Removes journals that nobody named
  /// once nothing needs them. Throws one Error that says what is missing and how to get it; then, if the last run is
  /// not complete, Interrupted or an Error with what stopped it; then Error if a journal misses shards.
  void write(const EvalResult& result, const ResultViews& views) const;

 private:
  const EvalArguments& arguments_;  // NOLINT(cppcoreguidelines-avoid-const-or-ref-data-members)
  PerTokenFile per_token_;
};

}  // namespace mxlm::cli
