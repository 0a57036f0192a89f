#pragma once

// Everything that an evaluation decides before its first shard.

#include <memory>
#include <vector>

#include "journal/journal.hpp"
#include "load/load.hpp"
#include "ranks/team.hpp"
#include "run/options.hpp"
#include "run/results.hpp"
#include "variants/resolve.hpp"

namespace mxlm {

/// A run that is ready for its first shard.
struct PreparedRun {
  DType compute = DType::f32;
  std::vector<Variant> variants;          // the baseline first
  std::vector<ResolvedVariant> resolved;  // of `variants`, in the same order
  ProtocolOptions protocol;
  WindowSet set;
  double seconds_tokenize = 0;
  ModelInfo model;
  std::unique_ptr<Team> team;        // null = this process alone
  std::unique_ptr<Journal> journal;  // null = the run keeps no journal
};

/// Tells the other ranks to load the model, cuts the text into windows and opens the journal. Throws Error and
/// Interrupted.
PreparedRun prepare_run(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options);

}  // namespace mxlm
