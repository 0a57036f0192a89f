#pragma once

// Runs shards on workers. Each worker has its own thread, backend, forward pass and engine, and takes the next shard
// from one queue when it has finished the last. Results are put together in the order of the shards, so no digit
// depends on the number of workers, on their speed, or on which worker computed which shard.

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

/// A backend and the model's constants on it. Only the thread that made a worker may use it.
struct Worker {
  Worker(std::unique_ptr<Backend> b, const ModelSpec& model, DType compute, size_t d = 0)
      : device(d), backend(std::move(b)), forward(std::make_unique<ForwardPass>(model, *backend, compute)) {}
  size_t device;  // a number that the caller gives to the worker's device
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ForwardPass> forward;
};

/// Gives shards to workers and takes their results. Several threads may use it.
class RoundSource {
 public:
  RoundSource() = default;
  RoundSource(const RoundSource&) = delete;
  RoundSource& operator=(const RoundSource&) = delete;
  virtual ~RoundSource() = default;
  /// The next shard; nullopt when all shards are finished or when the run ends early. Waits while other workers may
  /// still give shards back.
  virtual std::optional<size_t> take() = 0;
  virtual void finish(size_t round, RoundResult result) = 0;
  /// Counts work for the progress (see Engine::run_round). `device` is Worker::device.
  virtual void add_work(size_t device, double node_tokens) = 0;
  /// Returns a shard to the queue because its worker cannot compute it.
  virtual void give_back(size_t round) = 0;
  /// Takes a worker out because its device lacks memory. Returns false if it is the last worker, which cannot leave.
  virtual bool leave(const OutOfDeviceMemory& why) = 0;
  /// Ends the run: no worker gets another shard.
  virtual void end(std::exception_ptr error) = 0;
  virtual void interrupt() = 0;
  /// Like interrupt(), with the reason. Finished shards count, later shards do not.
  virtual void stop_early(const Error& why) = 0;
};

class RoundQueue;

/// Optional connections of a run: the keeper of its results, ranks in other processes, and claims of a shared folder.
struct RoundHooks {
  /// Receives each finished shard at once. One thread at a time calls it. An exception ends the run.
  std::function<void(std::span<const Plan::Range> batches, const RoundResult& result)> on_round = {};
  /// The number of workers in other processes, and the function that gives shards to them. The function runs on its own
  /// thread, returns when all these workers have ended, and must not throw.
  size_t elsewhere_workers = 0;
  std::function<std::vector<WorkerOutcome>(RoundQueue& rounds)> elsewhere = {};
  /// Asks whether this process may compute a shard. One thread at a time calls it. If it is empty, this process
  /// computes all shards. The result lacks the shards that other processes finish.
  std::function<Claim(size_t round)> claim = {};
  /// Called repeatedly for each shard that another process has claimed and that this process waits for. One thread at a
  /// time calls it.
  std::function<void(size_t round)> waiting = {};
};

/// Runs workers (see run_rounds) on shards from `rounds` until it has no more. Exceptions of workers go to
/// `rounds.end()`.
std::vector<WorkerOutcome> work_on(const EngineJob& job, Worker& first,
                                   std::span<const std::function<std::unique_ptr<Worker>()>> others,
                                   RoundSource& rounds);

/// Runs all shards of the plan. `first` works on the calling thread; each of `others` makes one more worker on its own
/// thread.
///
/// * An interrupt ends the run after the current micro-batch and keeps the finished shards.
/// * A watched file (FileView::watch) that has changed by the end of a shard ends the run too; that shard does not
/// count.
/// * An Error of a worker is thrown after the other workers have finished their current shards.
/// * A worker whose device lacks memory for a shard halves the micro-batches and computes the shard again. If nothing
/// can
///   be halved, the worker ends and leaves the shard to the other workers.
///
/// One thread at a time calls `on_progress`. `known` holds, for each window, results of windows that are in no shard of
/// the plan; it is empty if nothing is known.
RunScores run_rounds(const EngineJob& job, Worker& first,
                     std::span<const std::function<std::unique_ptr<Worker>()>> others,
                     const std::function<void(const Progress&)>& on_progress, const RoundHooks& hooks = {},
                     std::vector<std::optional<WindowResult>> known = {});

}  // namespace mxlm
