#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace mxlm {

/// A fixed set of threads that share out the tasks of one loop at a time. Which thread runs a task never changes a
/// result: tasks write to places of their own.
class ThreadPool {
 public:
  /// `threads` >= 1 counts the calling thread, so that 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int threads() const;

  /// Runs `body(task, worker)` for every task in [0, tasks), tasks in ascending order of start, worker in [0,
  /// threads()). Returns when all are done; rethrows the first exception after the running tasks have ended. Not
  /// reentrant: a body must not start another loop on the same pool.
  void run(int64_t tasks, const std::function<void(int64_t task, int worker)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Threads to use when the user names no number: the cores this process may run on (affinity and cgroup quota).
int default_thread_count();

}  // namespace mxlm
