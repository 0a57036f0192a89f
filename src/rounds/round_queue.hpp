#pragma once

// The queue of a run's shards.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "rounds/scheduler.hpp"

namespace mxlm {

/// The only queue of a run's shards. Workers of this process use it directly; ranks in other processes use it through
/// the thread that serves them.
class RoundQueue final : public RoundSource {
 public:
  /// Borrows everything. `workers` counts the workers of all processes.
  RoundQueue(const EngineJob& job, size_t workers, const std::function<void(const Progress&)>& on_progress,
             const RoundHooks& hooks);

  std::optional<size_t> take() override;
  void finish(size_t round, RoundResult result) override;
  void add_work(size_t device, double node_tokens) override;
  void give_back(size_t round) override;
  bool leave(const OutOfDeviceMemory& why) override;
  void end(std::exception_ptr error) override;
  void interrupt() override;
  void stop_early(const Error& why) override;

  /// take() for callers that must not wait. The answer is `later` while other workers may still give shards back.
  enum class Answer : uint8_t { round, later, over };
  struct Offer {
    Answer answer;
    size_t round = 0;
  };
  Offer try_take();

  [[nodiscard]] std::exception_ptr error() const;
  [[nodiscard]] bool interrupted() const;
  /// See RunScores::stopped.
  [[nodiscard]] std::string stopped() const;
  /// [shard]. Callers use the results only after all workers have ended.
  std::vector<std::optional<RoundResult>>& results() { return results_; }
  [[nodiscard]] double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  Offer offer();
  /// Whether this process may run the shard that was taken. The caller holds `lock`, which is released while waiting.
  bool claimed(size_t round, std::unique_lock<std::mutex>& lock);

  const EngineJob& job_;
  const std::function<void(const Progress&)>& on_progress_;
  const RoundHooks& hooks_;
  const Clock::time_point start_ = Clock::now();
  double nodes_a_token_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<size_t> queue_;
  size_t workers_;
  size_t running_ = 0;
  size_t busy_ = 0;  // consecutive shards that other processes had claimed
  bool ending_ = false, interrupted_ = false;
  std::string stopped_;
  std::exception_ptr error_;
  Progress progress_;
  std::vector<std::optional<RoundResult>> results_;
};

}  // namespace mxlm
