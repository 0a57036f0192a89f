#include "rounds/scheduler.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <iterator>
#include <optional>
#include <thread>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "io/file.hpp"
#include "rounds/round_queue.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

size_t most_windows(std::span<const Plan::Range> batches) {
  size_t most = 0;
  for (const auto& [begin, end] : batches) most = std::max(most, end - begin);
  return most;
}

/// Cuts the same windows into micro-batches of at most `windows` windows.
std::vector<Plan::Range> cut(std::span<const Plan::Range> batches, size_t windows) {
  std::vector<Plan::Range> out;
  for (const auto& [begin, end] : batches) {
    for (size_t at = begin; at < end; at += windows) out.emplace_back(at, std::min(end, at + windows));
  }
  return out;
}

/// The loop of one worker over its shards. An interrupt or a changed file ends the loops of all workers. Throws Error.
/// Throws OutOfDeviceMemory after giving its shard back if the worker has to leave.
class RoundLoop {
 public:
  /// `start` is the time before the worker was made, so the first shard includes the set-up.
  RoundLoop(const EngineJob& job, Worker& worker, RoundSource& rounds, Clock::time_point start)
      : job_(job), worker_(worker), rounds_(rounds), engine_(job, *worker.backend, *worker.forward), start_(start) {
    report_.device = worker.device;
    report_.seconds.resize(job.tree.leaf.size());
  }

  void run(WorkerOutcome& outcome) {
    try {
      run_all();
    } catch (const OutOfDeviceMemory&) {
      outcome = outcome_so_far();
      throw;
    } catch (const Interrupted&) {
      rounds_.interrupt();
    } catch (const FilesChanged& error) {
      rounds_.stop_early(error);
    }
    outcome = outcome_so_far();
  }

 private:
  void run_all() {
    while (const auto round = rounds_.take()) {
      if (report_.rounds > 0) start_ = Clock::now();
      RoundResult result = run(*round);
      FileView::throw_if_changed();
      report_.round_seconds.push_back(seconds_since(start_));
      ++report_.rounds;
      report_.positions += result.positions;
      for (size_t v = 0; v < report_.seconds.size(); ++v) report_.seconds[v] += result.seconds[v];
      rounds_.finish(*round, std::move(result));
    }
  }

  WorkerOutcome outcome_so_far() {
    report_.memory = worker_.backend->device_memory();
    report_.routes = worker_.backend->route_counts();
    return {.report = report_, .routes = engine_.routes()};
  }

  RoundResult run(size_t round) {
    const std::vector<Plan::Range>& planned = job_.plan.rounds[round];
    while (true) {
      const std::vector<Plan::Range> batches = windows_ > 0 ? cut(planned, windows_) : planned;
      double work = 0;
      try {
        return engine_.run_round(batches, [&](double node_tokens) {
          work += node_tokens;
          rounds_.add_work(worker_.device, node_tokens);
        });
      } catch (const OutOfDeviceMemory& error) {
        rounds_.add_work(worker_.device, -work);
        const size_t most = most_windows(batches);
        if (most <= 1) {
          rounds_.give_back(round);
          throw;
        }
        windows_ = most / 2;
        log_warn("{} Shard {} is computed again with {} window{} per micro-batch instead of {}.", error.what(),
                 round + 1, windows_, windows_ == 1 ? "" : "s", most);
      }
    }
  }

  const EngineJob& job_;
  Worker& worker_;
  RoundSource& rounds_;
  Engine engine_;
  Clock::time_point start_;  // of the current shard
  size_t windows_ = 0;       // the most windows of a micro-batch; 0 = as planned
  WorkerReport report_;
};

void work(const EngineJob& job, const std::function<Worker&()>& make, RoundSource& rounds, WorkerOutcome& outcome) {
  try {
    const auto start = Clock::now();
    Worker& worker = make();
    RoundLoop(job, worker, rounds, start).run(outcome);
  } catch (const OutOfDeviceMemory& error) {
    if (rounds.leave(error)) {
      log_warn("{} Its worker ends, and the other workers compute the rest.", error.what());
    } else {
      rounds.end(std::current_exception());
    }
  } catch (...) {
    rounds.end(std::current_exception());
  }
}

}  // namespace

std::vector<WorkerOutcome> work_on(const EngineJob& job, Worker& first,
                                   std::span<const std::function<std::unique_ptr<Worker>()>> others,
                                   RoundSource& rounds) {
  std::vector<WorkerOutcome> outcomes(1 + others.size());
  std::vector<std::thread> threads;
  threads.reserve(others.size());
  for (size_t i = 0; i < others.size(); ++i) {
    threads.emplace_back([&, i, cancelled = current_cancellation()] {
      const CancellationScope scope(cancelled);
      std::unique_ptr<Worker> worker;
      work(
          job, [&]() -> Worker& { return *(worker = others[i]()); }, rounds, outcomes[i + 1]);
    });
  }
  work(
      job, [&]() -> Worker& { return first; }, rounds, outcomes[0]);
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

RunScores run_rounds(const EngineJob& job, Worker& first,
                     std::span<const std::function<std::unique_ptr<Worker>()>> others,
                     const std::function<void(const Progress&)>& on_progress, const RoundHooks& hooks,
                     std::vector<std::optional<WindowResult>> known) {
  RoundQueue rounds(job, 1 + others.size() + hooks.elsewhere_workers, on_progress, hooks);
  std::vector<WorkerOutcome> elsewhere;
  std::thread leader;
  if (hooks.elsewhere) {
    leader = std::thread([&, cancelled = current_cancellation()] {
      const CancellationScope scope(cancelled);
      elsewhere = hooks.elsewhere(rounds);
    });
  }
  std::vector<WorkerOutcome> outcomes = work_on(job, first, others, rounds);
  if (leader.joinable()) leader.join();
  std::move(elsewhere.begin(), elsewhere.end(), std::back_inserter(outcomes));
  if (rounds.error()) std::rethrow_exception(rounds.error());

  const size_t variants = job.tree.leaf.size();
  RunScores result;
  result.complete = !rounds.interrupted();
  result.stopped = rounds.stopped();
  result.scores.resize(variants);
  result.seconds.resize(variants);
  result.routes.resize(variants);
  result.layer_errors.resize(variants, std::vector<ErrorSums>(job.tree.levels.size()));
  std::vector<std::optional<WindowResult>> windows = std::move(known);
  windows.resize(job.windows.size());
  for (size_t r = 0; r < rounds.results().size(); ++r) {
    std::optional<RoundResult>& round = rounds.results()[r];
    if (!round) continue;
    result.positions += round->positions;
    for (size_t v = 0; v < variants; ++v) result.seconds[v] += round->seconds[v];
    auto next = round->windows.begin();
    for (const auto& [begin, end] : job.plan.rounds[r]) {
      for (size_t w = begin; w < end; ++w) windows[w] = std::move(*next++);
    }
    round.reset();
  }
  for (size_t w = 0; w < windows.size(); ++w) {
    if (!windows[w]) continue;
    result.windows.push_back(w);
    for (size_t v = 0; v < variants; ++v) {
      result.scores[v].push_back(std::move(windows[w]->scores[v]));
      for (size_t s = 0; s < job.tree.levels.size(); ++s) {
        result.layer_errors[v][s] += windows[w]->layer_errors[v][s];
      }
    }
    windows[w].reset();
  }
  for (WorkerOutcome& outcome : outcomes) {
    result.workers.push_back(std::move(outcome.report));
    for (size_t v = 0; v < outcome.routes.size(); ++v) result.routes[v].merge(outcome.routes[v]);
  }
  result.wall_seconds = rounds.seconds();
  return result;
}

}  // namespace mxlm
