#include "run/pass_runner.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/memory.hpp"
#include "variants/resolve.hpp"

namespace mxlm {
namespace {

// The number of sharing processes is unknown at the start, so cut enough shards for about this many workers.
constexpr size_t kSharedWorkers = 16;

using Round = std::vector<Plan::Range>;

std::vector<size_t> all_windows(const WindowSet& set) {
  std::vector<size_t> windows(set.windows.size());
  std::iota(windows.begin(), windows.end(), size_t{0});
  return windows;
}

/// Whether the results of all windows of a shard are known.
bool all_known(std::span<const Plan::Range> round, std::span<const std::optional<WindowResult>> known) {
  return std::all_of(round.begin(), round.end(), [&](const Plan::Range& range) {
    const auto windows = known.subspan(range.first, range.second - range.first);
    return std::all_of(windows.begin(), windows.end(), [](const auto& window) { return window.has_value(); });
  });
}

/// Replaces the shards of a plan with the unfinished ones of the shards that all processes agreed on, and maps the
/// plan's shards to the agreed ones.
class AgreedRounds {
 public:
  AgreedRounds(SharedRounds& shared, Plan& plan, size_t windows, std::span<const std::optional<WindowResult>> known)
      : shared_(shared) {
    std::vector<Round> cut = shared.agree(plan.rounds, windows);
    plan.rounds.clear();
    for (size_t r = 0; r < cut.size(); ++r) {
      number_of_[cut[r].front().first] = r;
      if (all_known(cut[r], known)) continue;
      numbers_.push_back(r);
      plan.rounds.push_back(std::move(cut[r]));
    }
  }
  Claim claim(size_t round) { return shared_.claim(numbers_[round]); }
  void tell_of_waiting(size_t round) { shared_.tell_of_waiting(numbers_[round]); }
  void finished(std::span<const Plan::Range> round) { shared_.finished(number_of_.at(round.front().first)); }

 private:
  SharedRounds& shared_;                // NOLINT(cppcoreguidelines-avoid-const-or-ref-data-members)
  std::vector<size_t> numbers_;         // [shard of the plan]: its number among all shards
  std::map<size_t, size_t> number_of_;  // by the first window of a shard
};

}  // namespace

PassRunner::PassRunner(const RunContext& context) : context_(context) {
  std::transform(context.set.windows.begin(), context.set.windows.end(), std::back_inserter(scored_),
                 [](const Window& window) { return window.scored(); });
  if (context.journal == nullptr) return;
  context.journal->drop_misfits(scored_);
  passes_ = resume_passes(*context.journal, context.variants, context.options.asked.noise);
}

Plan PassRunner::plan_rounds(const VariantTree& tree, const Known& known, bool shared) const {
  const ResolvedOptions& options = context_.options;
  const DeviceSet& devices = options.devices;
  const Team* const team = context_.team;
  std::vector<uint8_t> is_known;
  // Processes that share shards must all cut all windows in the same way, so `known` must not change the plan.
  if (!shared) {
    std::transform(known.begin(), known.end(), std::back_inserter(is_known),
                   [](const auto& window) { return window ? 1 : 0; });
  }
  PlanOptions plan{.batch_windows = options.asked.batch_size,
                   .keep = options.asked.stream ? KeepWeights::never : KeepWeights::automatic,
                   .memory_limit = memory_budget_bytes(),
                   .memory_in_use = resident_memory_bytes(),
                   .device_limit = devices.worker_limit(),
                   .workers = (shared ? kSharedWorkers : 1) * devices.workers(),
                   .known = is_known,
                   .round_tokens = options.asked.shard_tokens};
  if (team != nullptr) {  // rank 0 plans for all ranks, so that all have the same shards
    plan.memory_limit = team->memory_limit(plan.memory_limit / static_cast<uint64_t>(options.ranks->ranks_here()));
    plan.device_limit = team->device_limit(plan.device_limit);
    plan.workers += team->workers();
  }
  return make_plan(context_.model.spec, context_.compute, tree, context_.set.windows, plan);
}

RunScores PassRunner::run_rounds_of(std::span<const Variant> variants, bool reversed, Known known, const Keep& keep,
                                    SharedRounds* shared) {
  const ModelSpec& model = context_.model.spec;
  const WindowSet& set = context_.set;
  const DeviceSet& devices = context_.options.devices;
  Team* const team = context_.team;
  Worker first(devices.make_backend(0, reversed), model, context_.compute);
  std::vector<std::function<std::unique_ptr<Worker>()>> others;
  for (size_t w = 1; w < devices.workers(); ++w) {
    others.emplace_back([&, w] {
      return std::make_unique<Worker>(devices.make_backend(w, reversed), model, context_.compute, devices.device_of(w));
    });
  }
  const VariantTree tree = build_tree(model, resolve(model, variants));
  costs_.forwards += reversed ? 0 : tree.forwards();
  Plan plan = plan_rounds(tree, known, shared != nullptr);
  if (!plan.on_device) costs_.planned_memory_bytes = std::max(costs_.planned_memory_bytes, plan.total());

  RoundHooks hooks;
  std::unique_ptr<AgreedRounds> agreed;
  if (shared != nullptr) {
    agreed = std::make_unique<AgreedRounds>(*shared, plan, set.windows.size(), known);
    hooks.claim = [&](size_t round) { return agreed->claim(round); };
    hooks.waiting = [&](size_t round) { agreed->tell_of_waiting(round); };
  }
  hooks.on_round = [&](std::span<const Plan::Range> batches, const RoundResult& round) {
    if (!keep) return;
    std::vector<uint32_t> windows;
    for (const auto& [begin, end] : batches) {
      for (size_t w = begin; w < end; ++w) windows.push_back(static_cast<uint32_t>(w));
    }
    keep(std::move(windows), round);
    if (!agreed) return;
    context_.journal->flush();
    agreed->finished(batches);
  };
  const EngineJob job{.model = model,
                      .tree = tree,
                      .plan = plan,
                      .windows = set.windows,
                      .kind = set.kind,
                      .jensen_shannon = context_.options.asked.jensen_shannon};
  if (team != nullptr) {
    JobNews news{.variants = {},
                 .reversed = reversed,
                 .kind = set.kind,
                 .jensen_shannon = job.jensen_shannon,
                 .kept = plan.kept,
                 .rounds = plan.rounds,
                 .windows = {}};
    for (size_t v = 0; v < variants.size(); ++v) news.variants.push_back(v == 0 ? "" : variants[v].canonical());
    team->begin(news, set.windows);
    hooks.elsewhere_workers = team->workers();
    hooks.elsewhere = [&](RoundQueue& rounds) { return team->serve(job, rounds); };
  }
  DeviceMonitor monitor(devices);
  RunScores done = run_rounds(
      job, first, others,
      [&](Progress progress) {
        monitor.annotate(progress);
        if (context_.on_progress) context_.on_progress(progress);
      },
      hooks, std::move(known));
  if (!reversed) {
    costs_.devices = monitor.use(done.workers);
    if (team != nullptr) costs_.devices.insert(costs_.devices.end(), team->devices().begin(), team->devices().end());
  }
  return done;
}

PassRunner::Keep PassRunner::keep_in_journal(size_t pass, bool reversed) const {
  return [this, pass, reversed](std::vector<uint32_t> windows, const RoundResult& round) {
    context_.journal->append(pass, reversed, std::move(windows), round);
  };
}

void PassRunner::tell_of_resuming(const ResumedPass& pass, bool reversed) const {
  const size_t there = context_.journal->known_windows(pass.pass, reversed);
  if (there > 0) log_info("resuming: {} of {} windows are in the journal", there, scored_.size());
}

/// Reads the finished shards of all processes. `rounds` is the number of agreed shards.
void PassRunner::read_again(const SharedRounds& shared, size_t rounds) const {
  context_.journal->reread(shared.record_files(rounds));
  context_.journal->drop_misfits(scored_);
}

// A process that finds no shard to claim waits for the last shards of the other processes, so that it can take over if
// one of them dies. It then has the whole result. Therefore each finished task of a Slurm array has printed the result.
RunScores PassRunner::run_shared(const ResumedPass& pass, bool reversed) {
  Journal& journal = *context_.journal;
  const double timeout = context_.options.asked.claim_timeout;
  SharedRounds shared(journal.folder(), pass.pass, reversed, journal.records_name(), timeout);
  bool complete = true;
  std::string stopped;
  for (bool again = false; complete; again = true) {
    const auto cut = again ? shared.agree({}, scored_.size()) : std::vector<Round>();
    read_again(shared, cut.size());
    if (!again) tell_of_resuming(pass, reversed);
    if (journal.complete(pass.pass, reversed)) break;
    Known known = journal.known(pass.pass, reversed);
    // In a second pass all shards were finished, but some cannot be read.
    for (size_t r = 0; r < cut.size(); ++r) {
      if (!all_known(cut[r], known)) shared.forget(r);
    }
    const RunScores ran =
        run_rounds_of(pass.variants, reversed, std::move(known), keep_in_journal(pass.pass, reversed), &shared);
    complete = ran.complete;
    stopped = ran.stopped;
    if (journal.failure()) fail("The result is incomplete because {}.", *journal.failure());
    if (!complete) read_again(shared, shared.agree({}, scored_.size()).size());
  }
  const Known known = journal.known(pass.pass, reversed);
  std::vector<size_t> windows = all_windows(context_.set);
  std::erase_if(windows, [&](size_t w) { return !known[w]; });
  RunScores result = journaled_result(journal, pass.pass, reversed, windows);
  result.complete = complete;
  result.stopped = stopped;
  return result;
}

RunScores PassRunner::run_here(bool reversed) {
  Journal& journal = *context_.journal;
  std::vector<size_t> windows = all_windows(context_.set);
  std::vector<std::optional<RunScores>> ran(passes_.size());
  const auto left = [&](const ResumedPass& s) { return !journal.complete(s.pass, reversed); };
  const auto incomplete = std::count_if(passes_.begin(), passes_.end(), left);
  for (size_t s = 0; s < passes_.size(); ++s) {
    tell_of_resuming(passes_[s], reversed);
    if (!left(passes_[s])) continue;
    const size_t pass = passes_[s].pass;
    ran[s] =
        run_rounds_of(passes_[s].variants, reversed, journal.known(pass, reversed), keep_in_journal(pass, reversed));
    journal.flush();
    // If several lists of variants are incomplete, they may have no finished window in common.
    if (!ran[s]->stopped.empty() && incomplete > 1) throw Error(ran[s]->stopped);
    if (!ran[s]->complete && incomplete > 1) throw Interrupted();
    if (!ran[s]->complete) windows = ran[s]->windows;
  }
  std::vector<RunScores> results;
  for (size_t s = 0; s < passes_.size(); ++s) {
    results.push_back(ran[s] ? std::move(*ran[s]) : journaled_result(journal, passes_[s].pass, reversed, windows));
  }
  return assemble(passes_, std::move(results));
}

RunScores PassRunner::run(bool reversed) {
  if (context_.journal == nullptr) return run_rounds_of(context_.variants, reversed, {}, {});
  if (!context_.options.asked.shared) return run_here(reversed);
  std::vector<RunScores> results;
  results.reserve(passes_.size());
  for (const ResumedPass& pass : passes_) results.push_back(run_shared(pass, reversed));
  return assemble(passes_, std::move(results));
}

}  // namespace mxlm
