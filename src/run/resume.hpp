#pragma once

// Connects a run with its journal: opens the journal, finds the passes that are still to be run, and combines new
// results with those of the journal.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/round.hpp"
#include "journal/journal.hpp"
#include "load/load.hpp"
#include "run/options.hpp"

namespace mxlm {

/// The properties that the digits of a run depend on. `windows` are all windows of the run.
std::vector<JournalFact> journal_facts(const LoadedModel& model, const std::string& model_sha256,
                                       const DocumentSource& data, const ProtocolOptions& protocol,
                                       std::span<const Window> windows, DType compute, const BackendKind& backend,
                                       const ResolvedOptions& options);

/// Opens the journal of a run. If the default journal folder is unusable, logs why and returns null, because a run
/// without --journal must not fail for want of a journal. Throws Error if the folder was asked for.
std::unique_ptr<Journal> open_journal(const ResolvedOptions& options, std::vector<JournalFact> facts, size_t windows);

/// A list of variants of the journal that are run together, and their places in the run.
struct ResumedPass {
  size_t pass = 0;                // index among the journal's passes
  std::vector<Variant> variants;  // the baseline first
  /// For each variant of the run its index in `variants`; nullopt if another pass has the variant.
  std::vector<std::optional<size_t>> place;
};

/// The passes to run, or to look up, for these variants (the baseline first). New variants become a new pass with its
/// own baseline, which must have the same bits as before. Throws Error if the journal's own run has to be finished
/// first.
std::vector<ResumedPass> resume_passes(Journal& journal, std::span<const Variant> variants, bool noise);

/// The journal's scores of these windows of a pass; the journal must hold all of them.
RunScores journaled_result(const Journal& journal, size_t pass, bool reversed, std::span<const size_t> windows);

/// Combines the results of all passes, which must have the same windows, into the variants of the run. Throws Error if
/// their baselines differ.
RunScores assemble(std::span<const ResumedPass> passes, std::vector<RunScores> results);

}  // namespace mxlm
