#pragma once

// Reduces the measurements of an evaluation to the figures that reports show.

#include <limits>
#include <optional>

#include "engine/linear_study.hpp"
#include "engine/round.hpp"
#include "run/options.hpp"
#include "run/prepare_run.hpp"
#include "run/results.hpp"

namespace mxlm {

/// Everything that an evaluation measured.
struct Measurements {
  RunScores result;
  std::optional<RunScores> reversed = std::nullopt;  // all windows with float32 sums in the other order (--noise)
  double floor_kld = std::numeric_limits<double>::quiet_NaN();  // see NoiseFigures
  LinearStudy study = {};
  bool complete = true;  // see RunResult; false also if only a measurement after `result` is incomplete
  std::string stopped = {};
};

/// `run.set` must hold only the windows of `measured.result`. The caller adds total times, peak memory, ranks and the
/// journal.
RunResult result_of(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options,
                    const PreparedRun& run, Measurements measured, const RunCosts& costs);

}  // namespace mxlm
