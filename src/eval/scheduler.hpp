#pragma once

// Rounds on workers: each has a backend, a forward pass and an engine of its own, on a thread of its own, and takes the
// next round from one queue when it is done with the last. Results are put together in round order, so no digit depends
// on how many workers there are, how fast they are, or which of them ran what.

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/nvml/nvml.hpp"
#include "base/error.hpp"
#include "eval/engine.hpp"

namespace mxlm {

/// The part of one device in the work done so far.
struct DeviceProgress {
  double done = 0;
  int index = 0;  // of a GPU, as the driver counts
  uint64_t memory_bytes = 0;
  GpuSample sample;
};

/// Work done so far, in positions x variants through the whole model.
struct Progress {
  double done = 0, total = 0;
  double seconds = 0;
  size_t round = 0, rounds = 0;  // finished, in all
  std::vector<DeviceProgress> devices;
};

/// A backend and the model's constants on it. Belongs to the thread that makes it.
struct Worker {
  Worker(std::unique_ptr<Backend> b, const ModelSpec& model, DType compute, size_t d = 0)
      : device(d), backend(std::move(b)), forward(std::make_unique<ForwardPass>(model, *backend, compute)) {}
  size_t device;  // what it runs on, a number that the caller gives
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ForwardPass> forward;
};

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

struct EngineResult {
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

/// The device of a worker that is not in this process.
constexpr size_t kElsewhere = SIZE_MAX;

/// Where workers get rounds and where results go. Used by several threads.
class RoundSource {
 public:
  RoundSource() = default;
  RoundSource(const RoundSource&) = delete;
  RoundSource& operator=(const RoundSource&) = delete;
  virtual ~RoundSource() = default;
  /// The next round; none once all are done or the run ends early. Waits while others may hand rounds back.
  virtual std::optional<size_t> take() = 0;
  virtual void finish(size_t round, RoundResult result) = 0;
  /// For the progress: see Engine::run_round; `device` as Worker's.
  virtual void add_work(size_t device, double node_tokens) = 0;
  /// A round goes back because its worker cannot run it.
  virtual void give_back(size_t round) = 0;
  /// A worker goes, for want of memory, while others stay; false if it is the last.
  virtual bool leave(const OutOfDeviceMemory& why) = 0;
  /// Ends the run: nobody takes another round.
  virtual void end(std::exception_ptr error) = 0;
  virtual void interrupt() = 0;
  /// As an interrupt, with what has ended the run: rounds that are finished count, later ones do not.
  virtual void stop_early(const Error& why) = 0;
};

class RoundQueue;

/// Whose a round is where processes that know nothing of one another share rounds.
enum class Claim : uint8_t {
  ours,  // this process runs it
  busy,  // another has it, or had it before it died: ask again
  done,  // another has finished it
};

/// What a run has to do with those before it, and with those beside it.
struct RoundHooks {
  /// [window] -> what is known of windows that no round of the plan holds; empty = nothing. Is moved from.
  std::span<std::optional<WindowResult>> known = {};
  /// Is given each finished round as soon as it is there, by one thread at a time. What it throws ends the run.
  std::function<void(std::span<const Plan::Range> batches, const RoundResult& result)> on_round = {};
  /// Workers in other processes, and who hands rounds to them: is called on a thread of its own, returns when all of
  /// them are done, and throws nothing.
  size_t elsewhere_workers = 0;
  std::function<std::vector<WorkerOutcome>(RoundQueue& rounds)> elsewhere = {};
  /// Is asked before a round of the plan is run, by one thread at a time; none = all are ours. Rounds that others
  /// finish are missing from the result.
  std::function<Claim(size_t round)> claim = {};
  /// Is told of each round that this process waits for because others have it, again and again, by one thread at a
  /// time.
  std::function<void(size_t round)> waiting = {};
};

/// Workers, as of run_rounds, on rounds of the plan that come from `rounds`, until it has no more. What they throw goes
/// to `rounds`.
std::vector<WorkerOutcome> work_on(const EngineJob& job, Worker& first,
                                   std::span<const std::function<std::unique_ptr<Worker>()>> others,
                                   RoundSource& rounds);

/// Runs all rounds of the plan. `first` works on the calling thread; each of `others` makes one more worker, on a
/// thread of its own. An interrupt ends the run after the micro-batch at hand and keeps the finished rounds, as do
/// watched files (FileView::watch) that have changed by the end of a round, which itself does not count; an Error
/// of a worker is thrown once the others have finished their rounds. A worker whose device has no memory for a round
/// cuts its micro-batches in halves and runs it again; where nothing can be halved, it leaves the round and all others
/// to the other workers. `on_progress` is called by one thread at a time.
EngineResult run_rounds(const EngineJob& job, Worker& first,
                        std::span<const std::function<std::unique_ptr<Worker>()>> others,
                        const std::function<void(const Progress&)>& on_progress, const RoundHooks& hooks = {});

}  // namespace mxlm
