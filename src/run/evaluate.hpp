#pragma once

// One evaluation: prepares a run, runs its shards and reduces the scores to figures.

#include <functional>

#include "load/load.hpp"
#include "rounds/progress.hpp"
#include "run/options.hpp"
#include "run/results.hpp"

namespace mxlm {

/// Runs the baseline and all variants over a data set. After an interrupt, or after a change of the model's files
/// (`stopped`), the result holds the finished shards and `complete` is false. Shards that the journal holds are not
/// computed again. Every digit is the same with and without a journal, but speeds are those of the shards that this
/// process computed, if it computed any. Throws Error.
RunResult evaluate(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options,
                   const std::function<void(const Progress&)>& on_progress);

}  // namespace mxlm
