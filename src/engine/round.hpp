#pragma once

// What rounds and runs leave behind: records that the journal keeps, ranks send and results are made from.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "statistics/statistics.hpp"

namespace mxlm {

/// Of one variant: its own products plus the prefix it shares; preparing its weights; its part of the head.
struct VariantSeconds {
  double forward = 0, prepare = 0, head = 0;
  VariantSeconds& operator+=(const VariantSeconds& more) {
    forward += more.forward;
    prepare += more.prepare;
    head += more.head;
    return *this;
  }
};

/// What was computed of one window. Depends on the window, the variant and what computed it alone, so that windows of
/// several runs may stand beside each other.
struct WindowResult {
  std::vector<WindowScores> scores;                  // [variant]
  std::vector<std::vector<ErrorSums>> layer_errors;  // [variant][step]: see LayerErrors::of_window
};

/// What a finished round leaves.
struct RoundResult {
  std::vector<WindowResult> windows;    // in the order of its micro-batches
  std::vector<VariantSeconds> seconds;  // [variant]
  int64_t positions = 0;                // through the model
};

/// The device of a worker that is not in this process.
constexpr size_t kElsewhere = SIZE_MAX;

/// What became of a worker.
struct WorkerReport {
  size_t device = 0;
  size_t rounds = 0;  // finished
  int64_t positions = 0;
  std::vector<VariantSeconds> seconds;  // [variant]
  std::vector<double> round_seconds;    // wall time of each round that it finished; the first makes it ready, too
  DeviceMemory memory;
  RouteCounts routes;
};

struct RunScores {
  /// [variant][i], of window windows[i]; variant 0 is the baseline.
  std::vector<std::vector<WindowScores>> scores;
  std::vector<size_t> windows;  // those of finished rounds and known ones, ascending
  bool complete = true;         // false after Ctrl-C, or where `stopped` says why
  std::string stopped;          // a sentence: why the run ended early other than by an interrupt; "" = it did not
  int64_t positions = 0;        // through the model, of finished rounds
  /// [variant][step]: of the hidden state against the baseline's.
  std::vector<std::vector<ErrorSums>> layer_errors;
  std::vector<VariantSeconds> seconds;  // [variant], of all workers together
  std::vector<WorkerReport> workers;    // in the order of their numbers
  /// As Engine::routes, of all workers.
  std::vector<std::map<std::string, std::string>> routes;
  double wall_seconds = 0;

  /// Positions a second through a variant: each worker's own rate, summed.
  [[nodiscard]] double tokens_per_second(size_t variant) const;
};

/// What a worker leaves when it is done.
struct WorkerOutcome {
  WorkerReport report;
  std::vector<std::map<std::string, std::string>> routes;  // as Engine::routes; empty if it never began
};

/// Whose a round is where processes that know nothing of one another share rounds.
enum class Claim : uint8_t {
  ours,  // this process runs it
  busy,  // another has it, or had it before it died: ask again
  done,  // another has finished it
};

}  // namespace mxlm
