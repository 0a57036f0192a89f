#pragma once

// The thread pool that runs all loops.

#include <cstdint>
#include <functional>
#include <memory>

namespace mxlm {

/// A fixed set of threads that share the tasks of one loop at a time. Results never depend on which thread runs a task,
/// because each task writes to its own place.
class ThreadPool {
 public:
  /// Starts `threads` - 1 threads (`threads` >= 1): the calling thread counts.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const;

  /// Runs `body(task, worker)` for every task in [0, tasks), with worker in [0, threads()). Tasks start in ascending
  /// order. Returns when all tasks are done; after an exception, waits for the running tasks and rethrows the first
  /// one. A body must not start another loop on the same pool.
  void run(int64_t tasks, const std::function<void(int64_t task, int worker)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The number of threads when the user names none: the cores that this process may use (affinity and cgroup quota).
int default_thread_count();

}  // namespace mxlm
