#pragma once

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

/// The one queue of a run's rounds: what the workers of a process share, and those of others through the thread that
/// serves them.
class RoundQueue final : public RoundSource {
 public:
  /// Everything is borrowed. `workers`: all of them, wherever they are.
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

  /// take() for who must not wait: `later` while others may hand rounds back.
  enum class Answer : uint8_t { round, later, over };
  struct Offer {
    Answer answer;
    size_t round = 0;
  };
  Offer try_take();

  [[nodiscard]] std::exception_ptr error() const;
  [[nodiscard]] bool interrupted() const;
  /// As RunScores::stopped.
  [[nodiscard]] std::string stopped() const;
  /// [round]; to be used when no worker is left.
  std::vector<std::optional<RoundResult>>& results() { return results_; }
  [[nodiscard]] double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  Offer offer();
  /// Whether a round that was taken is to be run here; with `lock` held, which it lets go of while it waits.
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
  size_t busy_ = 0;  // rounds in a row that others had
  bool ending_ = false, interrupted_ = false;
  std::string stopped_;
  std::exception_ptr error_;
  Progress progress_;
  std::vector<std::optional<RoundResult>> results_;
};

}  // namespace mxlm
