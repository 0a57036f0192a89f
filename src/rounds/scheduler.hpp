#pragma once

// Rounds on workers: each has a backend, a forward pass and an engine of its own, on a thread of its own, and takes the
// next round from one queue when it is done with the last. Results are put together in round order, so no digit depends
// on how many workers there are, how fast they are, or which of them ran what.

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "engine/engine.hpp"
#include "engine/round.hpp"
#include "rounds/progress.hpp"

namespace mxlm {

/// A backend and the model's constants on it. Belongs to the thread that makes it.
struct Worker {
  Worker(std::unique_ptr<Backend> b, const ModelSpec& model, DType compute, size_t d = 0)
      : device(d), backend(std::move(b)), forward(std::make_unique<ForwardPass>(model, *backend, compute)) {}
  size_t device;  // what it runs on, a number that the caller gives
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ForwardPass> forward;
};

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

/// Optional connections of a run: who keeps its results, ranks in other processes, and shared-folder claims.
struct RoundHooks {
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
/// to the other workers. `on_progress` is called by one thread at a time. `known`: [window], results of windows that no
/// round of the plan holds; empty = nothing is known.
RunScores run_rounds(const EngineJob& job, Worker& first,
                     std::span<const std::function<std::unique_ptr<Worker>()>> others,
                     const std::function<void(const Progress&)>& on_progress, const RoundHooks& hooks = {},
                     std::vector<std::optional<WindowResult>> known = {});

}  // namespace mxlm
