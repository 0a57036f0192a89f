#include "run/evaluate.hpp"

#include <chrono>
#include <optional>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/memory.hpp"
#include "base/quote.hpp"
#include "engine/linear_study.hpp"
#include "engine/noise_floor.hpp"
#include "io/file.hpp"
#include "run/pass_runner.hpp"
#include "run/prepare_run.hpp"
#include "run/result_of.hpp"

namespace mxlm {
namespace {

/// Drops the windows that are not finished, because they have no figures.
void keep_finished(std::span<const size_t> finished, std::vector<Window>& windows) {
  if (finished.size() == windows.size()) return;
  std::vector<Window> out;
  out.reserve(finished.size());
  for (const size_t w : finished) out.push_back(std::move(windows[w]));
  windows = std::move(out);
}

/// Makes a measurement after the shards. An interrupt, or a change of the model's files, leaves the run incomplete.
template <typename Measure>
auto measure_also(Measurements& measured, const Measure& measure) -> std::optional<decltype(measure())> {
  try {
    auto out = measure();
    FileView::throw_if_changed();
    return out;
  } catch (const Interrupted&) {
    measured.complete = false;
  } catch (const FilesChanged& error) {
    measured.complete = false;
    measured.stopped = error.what();
  }
  return std::nullopt;
}

/// Runs everything again with another order of float32 sums.
void add_reversed(const ModelSpec& model, const DeviceSet& devices, const PreparedRun& run, PassRunner& runner,
                  Measurements& measured) {
  RunScores reversed = runner.run(/*reversed=*/true);
  measured.complete = reversed.complete;
  measured.stopped = reversed.stopped;
  if (!reversed.complete) return;
  measured.reversed = std::move(reversed);
  const auto floor = measure_also(measured, [&] {
    const auto plain = devices.make_backend(0), other = devices.make_backend(0, /*reversed=*/true);
    return measure_floor(model, *plain, *other, run.compute, run.set.windows, run.set.kind);
  });
  if (floor) measured.floor_kld = *floor;
}

void add_study(const ModelSpec& model, const ResolvedOptions& options, const PreparedRun& run, Measurements& measured) {
  auto study = measure_also(measured, [&] {
    DeviceSet devices = options.devices;
    devices.gemm = GemmRoute::exact;
    return study_linears(
        model, *devices.make_backend(0), run.compute, run.resolved, run.set.windows,
        {.errors = options.asked.linear_errors, .exponents = options.asked.exponents, .threads = devices.threads});
  });
  if (study) measured.study = std::move(*study);
}

void tell_of_ranks(const PreparedRun& run) {
  if (!run.team) return;
  log_info("{} ranks share the shards{}", run.team->ranks(),
           run.journal ? fmt::format("; if a rank dies, the same command with --journal {} --resume goes on, on any "
                                     "number of ranks",
                                     quote(run.journal->folder().native()))
                       : "");
}

void add_journal(const Journal& journal, RunResult& out) {
  out.journal_folder = journal.folder().native();
  out.journal_failure = journal.failure().value_or("");
  if (!out.complete && out.windows > 0 && out.journal_failure.empty()) {
    log_warn("finished shards are kept in '{}'; the same command with --resume goes on from there", out.journal_folder);
  }
}

}  // namespace

RunResult evaluate(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options,
                   const std::function<void(const Progress&)>& on_progress) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  PreparedRun run = prepare_run(model, data, options);
  PassRunner runner({.model = model,
                     .compute = run.compute,
                     .set = run.set,
                     .variants = run.variants,
                     .options = options,
                     .on_progress = on_progress,
                     .team = run.team.get(),
                     .journal = run.journal.get()});
  tell_of_ranks(run);

  Measurements measured{.result = runner.run(/*reversed=*/false)};
  measured.complete = measured.result.complete;
  measured.stopped = measured.result.stopped;
  keep_finished(measured.result.windows, run.set.windows);
  if (options.on_scores && !run.set.windows.empty()) {
    options.on_scores({.variants = run.variants, .windows = run.set.windows, .scores = measured.result.scores});
  }
  if (measured.complete && options.asked.noise) add_reversed(model.spec, options.devices, run, runner, measured);
  if (measured.complete && (options.asked.linear_errors || options.asked.exponents)) {
    add_study(model.spec, options, run, measured);
  }

  RunResult out = result_of(model, data, options, run, std::move(measured), runner.costs());
  if (run.team) out.ranks = run.team->ranks();
  if (run.journal) add_journal(*run.journal, out);
  out.peak_memory_bytes = peak_memory_bytes();
  out.seconds_total = std::chrono::duration<double>(Clock::now() - start).count();
  return out;
}

}  // namespace mxlm
