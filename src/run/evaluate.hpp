#pragma once

#include <functional>

#include "load/load.hpp"
#include "rounds/progress.hpp"
#include "run/options.hpp"
#include "run/results.hpp"

namespace mxlm {

/// Runs the baseline and all variants over a data set. After an interrupt, or where the model's files change meanwhile
/// (`stopped`), the result holds the finished rounds and `complete` is false. With a journal, rounds that it holds are
/// not run again: every digit is the same, but speeds are those of what this process ran, if it ran anything. Throws
/// Error.
RunResult evaluate(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options,
                   const std::function<void(const Progress&)>& on_progress);

}  // namespace mxlm
