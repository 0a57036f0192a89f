#pragma once

// What an evaluation needs to know of its options.

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

/// The dtype that a run computes in: the checkpoint's, except that F16 computes in float32.
DType compute_dtype(const ModelSpec& model, api::ComputeType choice);

/// What an evaluation scored, for one's own statistics.
struct ScoredTokens {
  std::span<const Variant> variants;  // the baseline first
  std::span<const Window> windows;
  std::span<const std::vector<WindowScores>> scores;  // [variant][window], of finished rounds
};

/// The options of a run with what they name looked up; resolve_options (library/state.hpp) makes it.
struct ResolvedOptions {
  api::EvaluateOptions asked;     // checked
  ProtocolOptions protocol;       // context 0 = the protocol's default for the model
  std::vector<Variant> variants;  // parsed, without the baseline
  DeviceSet devices;
  /// Where a run without --journal gets a folder, named after what the run is; "" = such a run keeps no journal.
  std::filesystem::path journal_root;
  Ranks* ranks = nullptr;    // that share the shards, of which this is rank 0; borrowed
  bool mixed_ranks = false;  // allowed to compute with different backends
  /// Is given all scores at the end, also after an interrupt unless no window is finished.
  std::function<void(const ScoredTokens&)> on_scores;
};

}  // namespace mxlm
