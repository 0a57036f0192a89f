#pragma once

// The results of shards and runs. The journal stores them, ranks send them, and reports are made from them.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "statistics/statistics.hpp"

namespace mxlm {

/// Seconds of one variant. `forward` includes the steps that the variant shares with others, `prepare` is for its
/// weights, and `head` is its part of the LM head.
struct VariantSeconds {
  double forward = 0, prepare = 0, head = 0;
  VariantSeconds& operator+=(const VariantSeconds& more) {
    forward += more.forward;
    prepare += more.prepare;
    head += more.head;
    return *this;
  }
};

/// The result of one window. It depends only on the window, the variant and what computed it, so a result may combine
/// windows of several runs.
struct WindowResult {
  std::vector<WindowScores> scores;                  // [variant]
  std::vector<std::vector<ErrorSums>> layer_errors;  // [variant][step]: see LayerErrors::of_window
};

/// The result of a finished shard.
struct RoundResult {
  std::vector<WindowResult> windows;    // in the order of the shard's micro-batches
  std::vector<VariantSeconds> seconds;  // [variant]
  int64_t positions = 0;                // tokens that went through the model
};

/// The device of a worker in another process.
constexpr size_t kElsewhere = SIZE_MAX;

/// What a worker has done.
struct WorkerReport {
  size_t device = 0;
  size_t rounds = 0;  // finished shards
  int64_t positions = 0;
  std::vector<VariantSeconds> seconds;  // [variant]
  std::vector<double> round_seconds;    // wall time of each finished shard; the first includes the start of the worker
  DeviceMemory memory;
  RouteCounts routes;
};

/// The scores of a run, from all its shards.
struct RunScores {
  /// [variant][i] are the scores of window windows[i]; variant 0 is the baseline.
  std::vector<std::vector<WindowScores>> scores;
  std::vector<size_t> windows;  // window ids of finished shards and of known results, ascending
  bool complete = true;         // false after Ctrl-C, or if `stopped` has a reason
  std::string stopped;          // a sentence that says why the run ended early without an interrupt; else ""
  int64_t positions = 0;        // tokens that went through the model, in finished shards
  /// [variant][step]: sums of the hidden state compared with the baseline's.
  std::vector<std::vector<ErrorSums>> layer_errors;
  std::vector<VariantSeconds> seconds;  // [variant], summed over all workers
  std::vector<WorkerReport> workers;    // ordered by the workers' numbers
  /// Engine::routes of all workers.
  std::vector<std::map<std::string, std::string>> routes;
  double wall_seconds = 0;

  /// Tokens a second that go through a variant: the sum of the workers' own rates.
  [[nodiscard]] double tokens_per_second(size_t variant) const;
};

/// What a worker returns when it ends.
struct WorkerOutcome {
  WorkerReport report;
  std::vector<std::map<std::string, std::string>> routes;  // see Engine::routes; empty if the worker never began
};

/// Says which process computes a shard, in a shared journal whose processes do not know each other.
enum class Claim : uint8_t {
  ours,  // this process computes the shard
  busy,  // another process computes the shard, or has died while it did: ask again later
  done,  // another process has finished the shard
};

}  // namespace mxlm
