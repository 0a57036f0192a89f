#pragma once

// Lists of variants over all windows of a run: on this process's devices, with the other ranks of a team, or beside
// other processes on a shared folder. Windows that the journal holds are not run again.

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

/// What is the same for all lists. Everything is borrowed.
struct RunContext {
  const LoadedModel& model;
  DType compute;
  const WindowSet& set;
  std::span<const Variant> variants;  // the baseline first
  const ResolvedOptions& options;
  const std::function<void(const Progress&)>& on_progress;
  Team* team;        // null = this process alone
  Journal* journal;  // null = nothing is kept
};

class PassRunner {
 public:
  /// Throws Error if the journal cannot go on with these variants.
  explicit PassRunner(const RunContext& context);

  /// All variants over all windows; after an interrupt, over those of finished rounds. `reversed`: with float32 sums in
  /// the other order. Throws Error, Interrupted.
  RunScores run(bool reversed);

  /// Of what this process and its team have run so far.
  [[nodiscard]] const RunCosts& costs() const { return costs_; }

 private:
  using Known = std::vector<std::optional<WindowResult>>;
  /// Is given a finished round and its windows.
  using Keep = std::function<void(std::vector<uint32_t>, const RoundResult&)>;

  RunScores run_here(bool reversed);
  RunScores run_shared(const ResumedPass& pass, bool reversed);
  /// Runs the windows that `known` has nothing of.
  RunScores run_rounds_of(std::span<const Variant> variants, bool reversed, Known known, const Keep& keep,
                          SharedRounds* shared = nullptr);
  [[nodiscard]] Plan plan_rounds(const VariantTree& tree, const Known& known, bool shared) const;
  [[nodiscard]] Keep keep_in_journal(size_t pass, bool reversed) const;
  void tell_of_resuming(const ResumedPass& pass, bool reversed) const;
  void read_again(const SharedRounds& shared, size_t rounds) const;

  const RunContext context_;
  std::vector<size_t> scored_;       // tokens of each window
  std::vector<ResumedPass> passes_;  // with a journal
  RunCosts costs_;
};

}  // namespace mxlm
