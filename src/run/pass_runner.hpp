#pragma once

// Runs lists of variants over all windows of a run: on the devices of this process, with the other ranks of a team, or
// beside other processes that share a folder. Windows that the journal holds are not computed again.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "journal/journal.hpp"
#include "journal/shared_rounds.hpp"
#include "load/load.hpp"
#include "ranks/team.hpp"
#include "rounds/scheduler.hpp"
#include "run/options.hpp"
#include "run/resume.hpp"

namespace mxlm {

/// What all lists of variants of a run have in common. Borrows everything.
struct RunContext {
  const LoadedModel& model;
  DType compute;
  const WindowSet& set;
  std::span<const Variant> variants;  // the baseline first
  const ResolvedOptions& options;
  const std::function<void(const Progress&)>& on_progress;
  Team* team;        // null = this process alone
  Journal* journal;  // null = the run keeps no journal
};

/// Runs the passes of one run; a pass is one list of variants over all windows.
class PassRunner {
 public:
  /// Throws Error if the journal does not permit these variants.
  explicit PassRunner(const RunContext& context);

  /// Returns the scores of all variants and windows; after an interrupt, of the windows of finished shards. `reversed`
  /// computes float32 sums in the other order. Throws Error and Interrupted.
  RunScores run(bool reversed);

  /// The costs of the shards that this process and its team have computed so far.
  [[nodiscard]] const RunCosts& costs() const { return costs_; }

 private:
  using Known = std::vector<std::optional<WindowResult>>;
  /// Receives the window ids and the result of a finished shard.
  using Keep = std::function<void(std::vector<uint32_t>, const RoundResult&)>;

  RunScores run_here(bool reversed);
  RunScores run_shared(const ResumedPass& pass, bool reversed);
  /// Computes the windows that `known` lacks.
  RunScores run_rounds_of(std::span<const Variant> variants, bool reversed, Known known, const Keep& keep,
                          SharedRounds* shared = nullptr);
  [[nodiscard]] Plan plan_rounds(const VariantTree& tree, const Known& known, bool shared) const;
  [[nodiscard]] Keep keep_in_journal(size_t pass, bool reversed) const;
  void tell_of_resuming(const ResumedPass& pass, bool reversed) const;
  void read_again(const SharedRounds& shared, size_t rounds) const;

  const RunContext context_;
  std::vector<size_t> scored_;       // the number of scored tokens of each window
  std::vector<ResumedPass> passes_;  // empty without a journal
  RunCosts costs_;
};

}  // namespace mxlm
