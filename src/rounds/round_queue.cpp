#include "rounds/round_queue.hpp"

#include <algorithm>
#include <utility>

#include "base/interrupt.hpp"

namespace mxlm {
namespace {

constexpr auto kAskAgain = std::chrono::milliseconds(500);

}  // namespace

RoundQueue::RoundQueue(const EngineJob& job, size_t workers, const std::function<void(const Progress&)>& on_progress,
                       const RoundHooks& hooks)
    : job_(job), on_progress_(on_progress), hooks_(hooks), workers_(workers), results_(job.plan.rounds.size()) {
  for (size_t r = 0; r < results_.size(); ++r) queue_.push_back(r);
  // Progress counts nodes, because nodes are what the engine computes. The LM head counts as one step.
  const size_t variants = job.tree.leaf.size();
  nodes_a_token_ = static_cast<double>(job.tree.nodes() + variants);
  int64_t positions = 0;
  for (const auto& round : job.plan.rounds) {
    for (const auto& [begin, end] : round) {
      for (size_t w = begin; w < end; ++w) positions += static_cast<int64_t>(job.windows[w].tokens.size());
    }
  }
  progress_.total = static_cast<double>(positions) * static_cast<double>(variants);
  progress_.rounds = results_.size();
}

double RoundQueue::seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

RoundQueue::Offer RoundQueue::offer() {
  if (ending_ || (queue_.empty() && running_ == 0)) return {.answer = Answer::over};
  if (queue_.empty()) return {.answer = Answer::later};
  const size_t round = queue_.front();
  queue_.pop_front();
  ++running_;
  return {.answer = Answer::round, .round = round};
}

RoundQueue::Offer RoundQueue::try_take() {
  const std::lock_guard lock(mutex_);
  return offer();
}

std::optional<size_t> RoundQueue::take() {
  std::unique_lock lock(mutex_);
  while (true) {
    const Offer next = offer();
    if (next.answer == Answer::over) return std::nullopt;
    if (next.answer == Answer::later) changed_.wait(lock);
    if (next.answer == Answer::round && claimed(next.round, lock)) return next.round;
  }
}

bool RoundQueue::claimed(size_t round, std::unique_lock<std::mutex>& lock) {
  const Claim claim = hooks_.claim ? hooks_.claim(round) : Claim::ours;
  if (claim != Claim::busy) busy_ = 0;
  if (claim == Claim::ours) return true;
  --running_;
  changed_.notify_all();
  if (claim == Claim::done) {
    ++progress_.round;
    return false;
  }
  queue_.push_back(round);
  // Other processes have claimed all remaining shards, so wait until they finish or until their claims expire.
  if (++busy_ >= queue_.size()) {
    busy_ = 0;
    throw_if_interrupted();
    if (hooks_.waiting) std::for_each(queue_.begin(), queue_.end(), hooks_.waiting);
    changed_.wait_for(lock, kAskAgain);
  }
  return false;
}

void RoundQueue::finish(size_t round, RoundResult result) {
  const std::lock_guard lock(mutex_);
  if (hooks_.on_round) hooks_.on_round(job_.plan.rounds[round], result);
  results_[round] = std::move(result);
  ++progress_.round;
  --running_;
  changed_.notify_all();
}

void RoundQueue::add_work(size_t device, double node_tokens) {
  const std::lock_guard lock(mutex_);
  const double work = node_tokens / nodes_a_token_ * static_cast<double>(job_.tree.leaf.size());
  progress_.done += work;
  if (device != kElsewhere) {
    if (progress_.devices.size() <= device) progress_.devices.resize(device + 1);
    progress_.devices[device].done += work;
  }
  progress_.seconds = seconds();
  if (on_progress_ && node_tokens > 0) on_progress_(progress_);
}

void RoundQueue::give_back(size_t round) {
  const std::lock_guard lock(mutex_);
  queue_.push_front(round);
  --running_;
  changed_.notify_all();
}

bool RoundQueue::leave(const OutOfDeviceMemory& /*why*/) {
  const std::lock_guard lock(mutex_);
  if (workers_ <= 1) return false;
  --workers_;
  return true;
}

void RoundQueue::end(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
  ending_ = true;
  changed_.notify_all();
}

void RoundQueue::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = ending_ = true;
  changed_.notify_all();
}

void RoundQueue::stop_early(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (stopped_.empty()) stopped_ = why.what();
  interrupted_ = ending_ = true;
  changed_.notify_all();
}

std::string RoundQueue::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

std::exception_ptr RoundQueue::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

bool RoundQueue::interrupted() const {
  const std::lock_guard lock(mutex_);
  return interrupted_;
}

}  // namespace mxlm
