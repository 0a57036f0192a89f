#pragma once

// What an evaluation measured, reduced to the figures that reports show.

#include <limits>
#include <optional>

#include "engine/linear_study.hpp"
#include "engine/round.hpp"
#include "run/options.hpp"
#include "run/prepare_run.hpp"
#include "run/results.hpp"

namespace mxlm {

struct Measurements {
  RunScores result;
  std::optional<RunScores> reversed = std::nullopt;  // all windows with float32 sums in the other order (--noise)
  double floor_kld = std::numeric_limits<double>::quiet_NaN();  // as NoiseFigures
  LinearStudy study = {};
  bool complete = true;  // as RunResult; `result` alone may be complete where what follows it is not
  std::string stopped = {};
};

/// `run.set` holds the windows of `measured.result` alone. Times, memory, ranks and the journal are left to the caller.
RunResult result_of(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options,
                    const PreparedRun& run, Measurements measured, const RunCosts& costs);

}  // namespace mxlm
