#pragma once

// What a run has left to do, by its journal, and its results put together with what is there.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/round.hpp"
#include "journal/journal.hpp"
#include "load/load.hpp"
#include "run/options.hpp"

namespace mxlm {

/// What the digits of a run depend on. `windows` are all of it.
std::vector<JournalFact> journal_facts(const LoadedModel& model, const std::string& model_sha256,
                                       const DocumentSource& data, const ProtocolOptions& protocol,
                                       std::span<const Window> windows, DType compute, const BackendKind& backend,
                                       const ResolvedOptions& options);

/// The journal of a run. One that has no folder of its own must not stand in its way: where its journal cannot be, it
/// has none, and the log says why. Throws Error otherwise.
std::unique_ptr<Journal> open_journal(const ResolvedOptions& options, std::vector<JournalFact> facts, size_t windows);

/// One list of variants that are run together, and which of the run's they are.
struct ResumedPass {
  size_t pass = 0;                // of the journal
  std::vector<Variant> variants;  // the baseline first
  /// [variant of the run] -> its place in `variants`; none where another pass has it.
  std::vector<std::optional<size_t>> place;
};

/// What has to be run, or looked up, for these variants (the baseline first). New ones become a pass of their own,
/// beside a baseline that must come out as it was. Throws Error where the journal's own run has to be finished first.
std::vector<ResumedPass> resume_passes(Journal& journal, std::span<const Variant> variants, bool noise);

/// These windows of a pass, all of which the journal has.
RunScores journaled_result(const Journal& journal, size_t pass, bool reversed, std::span<const size_t> windows);

/// The variants of the run from the results of its passes, which are of the same windows. Throws Error if their
/// baselines differ.
RunScores assemble(std::span<const ResumedPass> passes, std::vector<RunScores> results);

}  // namespace mxlm
