#pragma once

// What an evaluation is asked for.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "cluster/ranks.hpp"
#include "eval/devices.hpp"
#include "eval/protocol.hpp"
#include "eval/statistics.hpp"
#include "eval/variant.hpp"
#include "model/spec.hpp"

namespace mxlm {

enum class DTypeChoice : uint8_t { automatic, float32, bfloat16 };

/// The dtype that a run computes in: the checkpoint's, except that F16 computes in float32.
DType compute_dtype(const ModelSpec& model, DTypeChoice choice);

/// What an evaluation scored, for one's own statistics.
struct ScoredTokens {
  std::span<const Variant> variants;  // the baseline first
  std::span<const Window> windows;
  std::span<const std::vector<WindowScores>> scores;  // [variant][window], of finished rounds
};

/// Where finished rounds are kept.
struct JournalOptions {
  std::filesystem::path folder;  // "" = one in `root`
  std::filesystem::path root;  // where a run without a folder of its own gets one, named after what it is; "" = nowhere
  bool resume = false;         // go on with what is there
  bool shared = false;         // several processes work on `folder` at the same time, each on rounds of its own
  double claim_seconds = 60;   // shared: a process that has not been heard of for so long has lost its rounds
};

struct EvaluateOptions {
  ProtocolOptions protocol;       // context 0 = the protocol's default for the model
  std::vector<Variant> variants;  // without the baseline
  DTypeChoice dtype = DTypeChoice::automatic;
  bool allow_long_context = false;
  bool noise = false;           // run everything again with another order of float32 sums
  bool stream = false;          // never keep weights between rounds
  bool jensen_shannon = false;  // also measure Jensen-Shannon divergences, in a second pass of the LM head
  bool linear_errors = false;   // also look at the operands and products of every replaced Linear
  bool exponents = false;       // also count the exponents of weights and activations
  int64_t batch_windows = 0;    // 0 = chosen
  int64_t round_tokens = 0;     // at most; 0 = chosen
  JournalOptions journal;
  DeviceSet devices;         // the CPU unless others are chosen
  Ranks* ranks = nullptr;    // that share the rounds, of which this is rank 0; borrowed
  bool mixed_ranks = false;  // though they compute with different backends
  /// Is given all scores at the end, also after an interrupt unless no window is finished.
  std::function<void(const ScoredTokens&)> on_scores;
};

}  // namespace mxlm
