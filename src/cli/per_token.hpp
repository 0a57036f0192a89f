#pragma once

// The output of --per-token.

#include <exception>
#include <optional>
#include <string>

#include "io/output_file.hpp"
#include "report/text_layout.hpp"
#include "run/options.hpp"

namespace mxlm::cli {

/// The file of --per-token. The constructor opens it before the run, so that an unusable path fails at once. An error
/// while writing is kept until finish(), so that the other results are not lost.
class PerTokenFile {
 public:
  /// With the path "" the object does nothing. Throws UsageError for an extension other than .csv, and for more than
  /// one run, because each run would need its own file.
  PerTokenFile(const std::string& path, size_t runs, Formulas formulas);
  /// Makes an evaluation write this file. The object must outlive the evaluation.
  void attach(ResolvedOptions& options);
  /// Rethrows the error of writing, if any.
  void finish() const;

 private:
  std::optional<OutputFile> file_;
  Formulas formulas_;
  std::exception_ptr failure_;
};

}  // namespace mxlm::cli
