#pragma once

// The options of an evaluation after their names have been looked up.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "cluster/ranks.hpp"
#include "devices/devices.hpp"
#include "model/spec.hpp"
#include "mxlm/options.hpp"
#include "protocols/protocol.hpp"
#include "statistics/statistics.hpp"
#include "variants/variant.hpp"

namespace mxlm {

/// The dtype that a run computes in. `automatic` is the dtype of the checkpoint, except that F16 computes in float32.
DType compute_dtype(const ModelSpec& model, api::ComputeType choice);

/// The scores of an evaluation, for statistics of the caller.
struct ScoredTokens {
  std::span<const Variant> variants;  // the baseline first
  std::span<const Window> windows;
  std::span<const std::vector<WindowScores>> scores;  // [variant][window], of finished shards
};

/// The options of a run, with variants parsed and devices chosen. resolve_options (library/state.hpp) makes them.
struct ResolvedOptions {
  api::EvaluateOptions asked;     // as given, and checked
  ProtocolOptions protocol;       // context 0 = the protocol's default for the model
  std::vector<Variant> variants;  // parsed, without the baseline
  DeviceSet devices;
  /// The folder of journals of runs without --journal; the name of such a journal is a hash of its run. "" = such runs
  /// keep no journal.
  std::filesystem::path journal_root;
  Ranks* ranks =
      nullptr;  // the ranks that share the shards; this process is rank 0. Borrowed; null = this process alone
  bool mixed_ranks = false;  // ranks may compute with different backends
  /// Receives all scores at the end, and after an interrupt too if at least one window is finished.
  std::function<void(const ScoredTokens&)> on_scores;
};

}  // namespace mxlm
