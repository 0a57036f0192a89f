#pragma once

#include <exception>
#include <optional>
#include <string>

#include "io/output_file.hpp"
#include "report/text_layout.hpp"
#include "run/options.hpp"

namespace mxlm::cli {

/// The file of --per-token. It is opened before the run, so that a path that cannot be written costs nothing; what goes
/// wrong while writing is kept until `finish`, so that it does not cost the results either.
class PerTokenFile {
 public:
  /// "" does nothing. Throws UsageError for an extension other than .csv, or more than one run, whose tokens would
  /// need a file each.
  PerTokenFile(const std::string& path, size_t runs, Formulas formulas);
  /// Makes an evaluation write this file, which must outlive it.
  void attach(ResolvedOptions& options);
  /// Rethrows what went wrong while writing.
  void finish() const;

 private:
  std::optional<OutputFile> file_;
  Formulas formulas_;
  std::exception_ptr failure_;
};

}  // namespace mxlm::cli
