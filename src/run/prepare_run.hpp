#pragma once

// What an evaluation decides before its first round.

#include <memory>
#include <vector>

#include "journal/journal.hpp"
#include "load/load.hpp"
#include "ranks/team.hpp"
#include "run/options.hpp"
#include "run/results.hpp"
#include "variants/resolve.hpp"

namespace mxlm {

struct PreparedRun {
  DType compute = DType::f32;
  std::vector<Variant> variants;          // the baseline first
  std::vector<ResolvedVariant> resolved;  // the same ones
  ProtocolOptions protocol;
  WindowSet set;
  double seconds_tokenize = 0;
  ModelInfo model;
  std::unique_ptr<Team> team;        // null = this process alone
  std::unique_ptr<Journal> journal;  // null = nothing is kept
};

/// Tells the other ranks of the model, cuts the text into windows and opens the journal. Throws Error, Interrupted.
PreparedRun prepare_run(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options);

}  // namespace mxlm
