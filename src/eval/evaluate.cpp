#include "eval/evaluate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/memory.hpp"
#include "base/quote.hpp"
#include "eval/journal.hpp"
#include "eval/resume.hpp"
#include "eval/shared_rounds.hpp"
#include "eval/team.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

// How many processes share a journal, nobody knows when it is begun: there are rounds enough for about so many.
constexpr size_t kSharedWorkers = 16;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

ProtocolOptions resolve_protocol(const LoadedModel& model, const Tokenizer& tokenizer, const EvaluateOptions& options) {
  ProtocolOptions protocol = options.protocol;
  const int64_t longest = model.spec.max_positions;
  if (protocol.context == 0) protocol.context = default_context(protocol.name, longest);
  if (protocol.context > longest && !model.spec.extends()) {
    fail_usage("--context {} is above the {} positions of '{}', whose table of positions ends there.", protocol.context,
               longest, model.name);
  }
  if (protocol.context > longest && !options.allow_long_context) {
    fail_usage(
        "--context {} is above the {} positions that '{}' was made for; pass --allow-long-context to run it all "
        "the same.",
        protocol.context, longest, model.name);
  }
  if (protocol.bos_id < 0) {
    const auto prefix = tokenizer.prefix();
    protocol.bos_id = prefix.empty() ? model.spec.bos_id : prefix.front();
  }
  const SpecialTokens& special = model.special;
  if (protocol.prefix_id < 0) protocol.prefix_id = special.bos >= 0 ? special.bos : special.eos;
  if (protocol.pad_id < 0) protocol.pad_id = special.pad >= 0 ? special.pad : special.eos;
  return protocol;
}

/// "no template" etc. in the words of --bos.
std::string bos_text(BosPolicy policy) {
  switch (policy) {
    case BosPolicy::from_template:
      return "template";
    case BosPolicy::always:
      return "always";
    case BosPolicy::never:
      return "never";
  }
  return "?";
}

std::string aggregate_text(Aggregate aggregate) {
  switch (aggregate) {
    case Aggregate::token_mean:
      return "token mean";
    case Aggregate::window_mean:
      return "mean of window means";
    case Aggregate::weighted_windows:
      return "weighted mean of window means";
  }
  return "?";
}

std::vector<WindowNote> notes_of(const WindowSet& set) {
  std::vector<WindowNote> notes;
  notes.reserve(set.windows.size());
  for (const Window& window : set.windows) notes.push_back(window.note);
  return notes;
}

int64_t linear_parameters(const ModelSpec& model) {
  int64_t sum = 0;
  for (const LinearSpec* linear : model.linears()) sum += linear->parameters();
  return sum;
}

/// Bytes of all Linears of the model (the head too) under a variant.
int64_t weight_bytes(const ModelSpec& model, const Variant& variant) {
  uint64_t sum = 0;
  for (const LinearSpec* linear : model.linears()) {
    const auto spec = variant.product(linear->module, linear->role).weights;
    const WeightSource& weight = linear->weight;
    if (!spec && weight.stored_bits > 0) {
      sum += static_cast<uint64_t>(weight.stored_bits * static_cast<double>(linear->parameters()) / 8);
    } else {
      sum += kept_weight_bytes(linear->parameters(), weight.matrix.cols, spec, weight.matrix.type);
    }
  }
  return static_cast<int64_t>(sum);
}

/// `routes`: by module.
std::vector<ReplacedLinear> replaced_linears(const ModelSpec& model, const Variant& variant,
                                             const std::map<std::string, std::string>& routes) {
  std::vector<ReplacedLinear> out;
  for (const LinearSpec* linear : model.linears()) {
    const ProductSpec product = variant.product(linear->module, linear->role);
    if (!product.replaced()) continue;
    const auto route = routes.find(linear->module);
    out.push_back({.tensor = linear->module + ".weight",
                   .role = std::string(role_name(linear->role)),
                   .weights = to_text(product.weights),
                   .activations = to_text(product.activations),
                   .outputs = to_text(product.outputs),
                   .route = route == routes.end() ? "" : route->second});
  }
  for (const char* which : {"qk", "pv"}) {
    const ProductSpec product = variant.attention_product(which);
    if (!product.replaced()) continue;
    out.push_back({.tensor = which,
                   .role = "attention product",
                   .weights = to_text(product.weights),
                   .activations = to_text(product.activations),
                   .outputs = to_text(product.outputs)});
  }
  if (variant.bf16_ops()) {
    out.push_back({.tensor = "vector",
                   .role = "vector operations",
                   .weights = to_text(std::nullopt),
                   .activations = to_text(mx::kStages[0].format),
                   .outputs = to_text(mx::kStages[0].format)});
  }
  return out;
}

/// The steps of the forward pass, without sums.
std::vector<LayerError> step_names(const ForwardPass& forward) {
  std::vector<LayerError> out;
  for (int64_t step = 0; step < forward.steps(); ++step) {
    const bool both = forward.has_attention(step) && forward.has_mlp(step);
    out.push_back({.layer = forward.layer_of(step),
                   .part = both                          ? "block"
                           : forward.has_attention(step) ? "attention"
                                                         : "mlp",
                   .sums = {}});
  }
  return out;
}

/// Figures of each subset name that documents carry, by first appearance; `set` has the windows of the result.
std::vector<SubsetResult> subset_figures(const WindowSet& set, const DocumentSource& data, const EngineResult& result) {
  std::vector<std::pair<std::string, std::vector<size_t>>> subsets;  // name, windows
  for (size_t w = 0; w < set.windows.size(); ++w) {
    const std::string& name = data.documents[static_cast<size_t>(set.windows[w].document)].subset;
    if (name.empty()) continue;
    auto found = std::find_if(subsets.begin(), subsets.end(), [&](const auto& s) { return s.first == name; });
    if (found == subsets.end()) found = subsets.insert(found, {name, {}});
    found->second.push_back(w);
  }
  std::vector<SubsetResult> out;
  for (const auto& [name, windows] : subsets) {
    std::vector<std::vector<WindowScores>> scores(result.scores.size());
    std::vector<WindowNote> notes;
    for (const size_t w : windows) notes.push_back(set.windows[w].note);
    for (size_t v = 0; v < scores.size(); ++v) {
      for (const size_t w : windows) scores[v].push_back(result.scores[v][w]);
    }
    out.push_back({.name = name,
                   .windows = static_cast<int64_t>(windows.size()),
                   .variants = summarize(scores, set.aggregate, notes, set.kind)});
  }
  return out;
}

/// Whether the results of all windows of a round are there.
bool all_known(std::span<const Plan::Range> round, std::span<const std::optional<WindowResult>> known) {
  return std::all_of(round.begin(), round.end(), [&](const Plan::Range& range) {
    const auto windows = known.subspan(range.first, range.second - range.first);
    return std::all_of(windows.begin(), windows.end(), [](const auto& window) { return window.has_value(); });
  });
}

void add_device_figures(const DeviceSet& devices, const EngineResult& result, RunResult& run) {
  run.gemm_route = devices.gemm == GemmRoute::fast ? "fast" : "exact";
  run.seconds_rounds = result.wall_seconds;
  for (const WorkerReport& worker : result.workers) {
    run.seconds_by_round.push_back(worker.round_seconds);
    run.gemm_counts.products += worker.routes.products;
    run.gemm_counts.rows += worker.routes.rows;
    run.gemm_counts.fell_back += worker.routes.fell_back;
  }
  double joules = 0;
  for (const DeviceUse& use : run.devices) {
    if (!use.energy_joules) return;
    joules += *use.energy_joules;
  }
  const auto tokens = static_cast<double>(result.positions) * static_cast<double>(result.scores.size());
  if (!run.devices.empty() && tokens > 0) run.joules_per_token = joules / tokens;
}

}  // namespace

DType compute_dtype(const ModelSpec& model, DTypeChoice choice) {
  switch (choice) {
    case DTypeChoice::float32:
      return DType::f32;
    case DTypeChoice::bfloat16:
      return DType::bf16;
    case DTypeChoice::automatic:
      break;
  }
  return model.dtype == DType::bf16 ? DType::bf16 : DType::f32;
}

void check_targets(const ModelSpec& model, const std::vector<Variant>& variants) {
  std::vector<NamedLinear> linears;
  for (const LinearSpec* linear : model.linears()) linears.push_back({.module = linear->module, .role = linear->role});
  for (const Variant& variant : variants) variant.require_matches(linears);
}

RunResult evaluate(const LoadedModel& model, const DocumentSource& data, const EvaluateOptions& options,
                   const std::function<void(const Progress&)>& on_progress) {
  const auto start = Clock::now();
  check_targets(model.spec, options.variants);
  if (!model.tokenizer) throw std::logic_error("evaluate needs a model that was loaded with its tokenizer");
  const DType compute = compute_dtype(model.spec, options.dtype);
  std::optional<Team> team;
  if (options.ranks != nullptr) team.emplace(*options.ranks, model, compute);
  const ProtocolOptions protocol = resolve_protocol(model, *model.tokenizer, options);
  WindowSet set = make_windows(protocol, data, *model.tokenizer);
  const double tokenize_seconds = seconds_since(start);

  std::vector<Variant> variants{{.name = "baseline", .clauses = {}}};
  variants.insert(variants.end(), options.variants.begin(), options.variants.end());

  RunResult run;
  // Before the run, so that an interrupt later cannot keep it from the report.
  run.model = {.name = model.name,
               .family = model.spec.family,
               .dtype = std::string(dtype_name(model.spec.dtype)),
               .compute_dtype = compute == DType::f32 ? "float32" : "bfloat16",
               .revision = model.revision,
               .sha256 = model.checkpoint.sha256(),
               .parameters = model.spec.parameters()};
  const DeviceSet& devices = options.devices;
  BackendKind backend = backend_kind(devices);
  if (team) {
    team->gather(run.model.sha256, backend, options.mixed_ranks);
    backend = team->backends();
  }
  std::unique_ptr<Journal> journal;
  std::vector<LayerError> steps;
  // Runs the windows that `known` has nothing of.
  const auto run_rounds_of = [&](std::span<const Variant> together, bool reversed,
                                 std::vector<std::optional<WindowResult>> known,
                                 const std::function<void(std::vector<uint32_t>, const RoundResult&)>& keep,
                                 SharedRounds* shared = nullptr) {
    Worker first(devices.make_backend(0, reversed), model.spec, compute);
    std::vector<std::function<std::unique_ptr<Worker>()>> others;
    for (size_t w = 1; w < devices.workers(); ++w) {
      others.emplace_back([&, w] {
        return std::make_unique<Worker>(devices.make_backend(w, reversed), model.spec, compute, devices.device_of(w));
      });
    }
    const VariantTree tree = build_tree(model.spec, *first.forward, together);
    run.forwards += reversed ? 0 : tree.forwards();
    steps = step_names(*first.forward);
    std::vector<uint8_t> is_known;
    // Where rounds are shared, all processes cut all windows alike, whatever they know of already.
    if (shared == nullptr) {
      is_known.resize(known.size());
      std::transform(known.begin(), known.end(), is_known.begin(), [](const auto& window) { return window ? 1 : 0; });
    }
    // Rank 0 plans for all, so that every rank has the same rounds.
    const uint64_t memory_share = team ? memory_budget_bytes() / static_cast<uint64_t>(options.ranks->ranks_here()) : 0;
    Plan plan = make_plan(model.spec, *first.forward, tree, set.windows,
                          {.batch_windows = options.batch_windows,
                           .keep = options.stream ? KeepWeights::never : KeepWeights::automatic,
                           .memory_limit = team ? team->memory_limit(memory_share) : memory_budget_bytes(),
                           .memory_in_use = resident_memory_bytes(),
                           .device_limit = team ? team->device_limit(devices.worker_limit()) : devices.worker_limit(),
                           .workers = shared != nullptr ? kSharedWorkers * devices.workers()
                                                        : devices.workers() + (team ? team->workers() : 0),
                           .known = is_known,
                           .round_tokens = options.round_tokens});
    if (!plan.on_device) run.planned_memory_bytes = std::max(run.planned_memory_bytes, plan.total());
    RoundHooks hooks;
    std::vector<size_t> numbers;         // [round of the plan] -> among those that are shared
    std::map<size_t, size_t> number_of;  // by a round's first window
    if (shared != nullptr) {
      auto cut = shared->agree(plan.rounds, set.windows.size());
      plan.rounds.clear();
      for (size_t r = 0; r < cut.size(); ++r) {
        number_of[cut[r].front().first] = r;
        if (all_known(cut[r], known)) continue;
        numbers.push_back(r);
        plan.rounds.push_back(std::move(cut[r]));
      }
      hooks.claim = [&](size_t round) { return shared->claim(numbers[round]); };
    }
    DeviceMonitor monitor(devices);
    const EngineJob job{.model = model.spec, .tree = tree, .plan = plan, .windows = set.windows, .kind = set.kind};
    hooks.known = known;
    hooks.on_round = [&](std::span<const Plan::Range> batches, const RoundResult& round) {
      if (!keep) return;
      std::vector<uint32_t> windows;
      for (const auto& [begin, end] : batches) {
        for (size_t w = begin; w < end; ++w) windows.push_back(static_cast<uint32_t>(w));
      }
      keep(std::move(windows), round);
      if (shared != nullptr) {
        journal->flush();
        shared->finished(number_of.at(batches.front().first));
      }
    };
    if (team) {
      JobNews news{.variants = {},
                   .reversed = reversed,
                   .kind = set.kind,
                   .kept = plan.kept,
                   .rounds = plan.rounds,
                   .windows = {}};
      for (size_t v = 0; v < together.size(); ++v) news.variants.push_back(v == 0 ? "" : together[v].canonical());
      team->begin(news, set.windows);
      hooks.elsewhere_workers = team->workers();
      hooks.elsewhere = [&](RoundQueue& rounds) { return team->serve(job, rounds); };
    }
    EngineResult done = run_rounds(
        job, first, others,
        [&](Progress progress) {
          monitor.complete(progress);
          if (on_progress) on_progress(progress);
        },
        hooks);
    if (!reversed) {
      run.devices = monitor.use(done.workers);
      if (team) run.devices.insert(run.devices.end(), team->devices().begin(), team->devices().end());
    }
    return done;
  };
  std::vector<ResumedSegment> segments;
  if (!options.journal.folder.empty() || !options.journal.root.empty()) {
    journal = open_journal(
        options.journal, journal_facts(model, run.model.sha256, data, protocol, set.windows, compute, backend, options),
        set.windows.size());
  }
  std::vector<size_t> scored;
  if (journal) {
    std::transform(set.windows.begin(), set.windows.end(), std::back_inserter(scored),
                   [](const Window& window) { return window.scored(); });
    journal->drop_misfits(scored);
    segments = resume_segments(*journal, variants, options.noise);
    run.journal_folder = journal->folder().native();
  }
  if (team) {
    log_info("{} ranks share the rounds{}", team->ranks(),
             journal ? fmt::format("; should one die, the same command with --journal {} --resume goes on, on any "
                                   "number of ranks",
                                   quote(run.journal_folder))
                     : "");
  }
  // Runs a segment beside other processes until all of it is there, whoever ran it. A process that finds nothing left
  // to claim waits for the others' last rounds, so that it can take over from one that dies, and then has the whole
  // result: a task of a Slurm array that ends has always printed what was asked for.
  const auto run_shared = [&](const ResumedSegment& segment, bool reversed) {
    SharedRounds shared(journal->folder(), segment.segment, reversed, journal->records_name(),
                        options.journal.claim_seconds);
    bool complete = true;
    for (int pass = 0;; ++pass) {
      const auto cut = pass > 0 ? shared.agree({}, set.windows.size()) : std::vector<std::vector<Plan::Range>>{};
      journal->reread(shared.record_files(cut.size()));
      journal->drop_misfits(scored);
      if (journal->complete(segment.segment, reversed)) break;
      auto known = journal->known(segment.segment, reversed);
      const auto there = std::count_if(known.begin(), known.end(), [](const auto& w) { return w.has_value(); });
      if (pass == 0 && there > 0) log_info("resuming: {} of {} windows are in the journal", there, known.size());
      // In a second pass all rounds were finished, but some cannot be read.
      for (size_t r = 0; r < cut.size(); ++r) {
        if (!all_known(cut[r], known)) shared.forget(r);
      }
      const EngineResult ran = run_rounds_of(
          segment.variants, reversed, std::move(known),
          [&](std::vector<uint32_t> of, const RoundResult& round) {
            journal->append(segment.segment, reversed, std::move(of), round);
          },
          &shared);
      if (journal->failure()) fail("The result is not whole, for {}.", *journal->failure());
      complete = ran.complete;
      if (complete) continue;
      journal->reread(shared.record_files(shared.agree({}, set.windows.size()).size()));
      journal->drop_misfits(scored);
      break;
    }
    const auto known = journal->known(segment.segment, reversed);
    std::vector<size_t> windows(known.size());
    std::iota(windows.begin(), windows.end(), size_t{0});
    std::erase_if(windows, [&](size_t w) { return !known[w]; });
    EngineResult result = journaled_result(*journal, segment.segment, reversed, windows);
    result.complete = complete;
    return result;
  };
  const auto run_with = [&](bool reversed) {
    if (journal && options.journal.shared) {
      std::vector<EngineResult> results;
      results.reserve(segments.size());
      for (const ResumedSegment& segment : segments) results.push_back(run_shared(segment, reversed));
      return assemble(segments, std::move(results));
    }
    if (!journal) return run_rounds_of(variants, reversed, {}, {});
    std::vector<size_t> windows(set.windows.size());
    std::iota(windows.begin(), windows.end(), size_t{0});
    std::vector<std::optional<EngineResult>> ran(segments.size());
    const auto left = [&](const ResumedSegment& s) { return !journal->complete(s.segment, reversed); };
    const auto incomplete = std::count_if(segments.begin(), segments.end(), left);
    for (size_t s = 0; s < segments.size(); ++s) {
      const size_t segment = segments[s].segment;
      if (!left(segments[s])) continue;
      auto known = journal->known(segment, reversed);
      const auto there = std::count_if(known.begin(), known.end(), [](const auto& w) { return w.has_value(); });
      if (there > 0) log_info("resuming: {} of {} windows are in the journal", there, known.size());
      ran[s] = run_rounds_of(segments[s].variants, reversed, std::move(known),
                             [&](std::vector<uint32_t> of, const RoundResult& round) {
                               journal->append(segment, reversed, std::move(of), round);
                             });
      journal->flush();
      // With several damaged lists of variants there may be no window that all of them have.
      if (!ran[s]->complete && incomplete > 1) throw Interrupted();
      if (!ran[s]->complete) windows = ran[s]->windows;
    }
    std::vector<EngineResult> results;
    for (size_t s = 0; s < segments.size(); ++s) {
      results.push_back(ran[s] ? std::move(*ran[s])
                               : journaled_result(*journal, segments[s].segment, reversed, windows));
    }
    return assemble(segments, std::move(results));
  };
  const EngineResult result = run_with(/*reversed=*/false);
  if (result.windows.size() < set.windows.size()) {
    // Only finished windows have figures.
    std::vector<Window> finished;
    finished.reserve(result.windows.size());
    for (const size_t w : result.windows) finished.push_back(std::move(set.windows[w]));
    set.windows = std::move(finished);
  }
  const std::vector<WindowNote> notes = notes_of(set);
  if (options.on_scores) options.on_scores({.variants = variants, .windows = set.windows, .scores = result.scores});
  const auto figures = summarize(result.scores, set.aggregate, notes, set.kind);
  run.complete = result.complete;

  if (steps.empty()) {  // nothing was left to run
    const Worker worker(devices.make_backend(0), model.spec, compute);
    steps = step_names(*worker.forward);
  }

  std::vector<VariantFigures> again;
  if (options.noise && result.complete) {
    const EngineResult reversed = run_with(/*reversed=*/true);
    run.complete = reversed.complete;
    if (reversed.complete) again = summarize(reversed.scores, set.aggregate, notes, set.kind);
  }

  LinearStudy study;
  if (run.complete && (options.linear_errors || options.exponents)) {
    try {
      DeviceSet exact = devices;
      exact.gemm = GemmRoute::exact;
      const auto study_backend = exact.make_backend(0);
      study =
          study_linears(model.spec, *study_backend, compute, variants, set.windows,
                        {.errors = options.linear_errors, .exponents = options.exponents, .threads = devices.threads});
    } catch (const Interrupted&) {
      run.complete = false;
    }
  }
  run.exponents = std::move(study.exponents);
  run.studied_windows = study.windows;
  run.studied_tokens = study.tokens;

  run.data = {.name = data.name, .sha256 = data.sha256, .documents = static_cast<int64_t>(data.documents.size())};
  run.protocol = {.name = protocol.name,
                  .context = protocol.context,
                  .stride = set.stride,
                  .bos = bos_text(protocol.bos),
                  .aggregate = aggregate_text(set.aggregate),
                  .skipped_documents = set.skipped_documents};
  run.windows = static_cast<int64_t>(result.scores[0].size());
  run.seconds_tokenize = tokenize_seconds;
  if (variants.size() - 1 <= kPairVariants) run.pairs = compare_pairs(result.scores, figures);
  const auto parameters = static_cast<double>(std::max<int64_t>(linear_parameters(model.spec), 1));
  for (size_t v = 0; v < variants.size(); ++v) {
    VariantResult out;
    out.name = variants[v].name;
    out.spec = v == 0 ? "" : variants[v].canonical();
    out.figures = figures[v];
    out.tokens_per_second = result.tokens_per_second(v);
    out.seconds = {.load = 0,
                   .tokenize = tokenize_seconds,
                   .prepare = result.seconds[v].prepare,
                   .forward = result.seconds[v].forward,
                   .head = result.seconds[v].head};
    out.replaced = replaced_linears(model.spec, variants[v], result.routes[v]);
    out.weight_bytes_baseline = weight_bytes(model.spec, variants[0]);
    out.weight_bytes_variant = weight_bytes(model.spec, variants[v]);
    if (v > 0) {
      out.layers = steps;
      // A journal without a window has no steps either.
      const auto& sums = result.layer_errors[v];
      for (size_t s = 0; s < std::min(steps.size(), sums.size()); ++s) out.layers[s].sums = sums[s];
    }
    if (!study.errors.empty()) out.linears = std::move(study.errors[v]);
    out.weight_bits_baseline = 8 * static_cast<double>(out.weight_bytes_baseline) / parameters;
    out.weight_bits_variant = 8 * static_cast<double>(out.weight_bytes_variant) / parameters;
    if (!again.empty()) {
      out.noise_measured = true;
      out.noise_nll = std::abs(again[v].nll - figures[v].nll);
      if (const auto &one = figures[v].vs_baseline, &other = again[v].vs_baseline; one && other) {
        out.noise_kld = std::abs(other->kld_mean - one->kld_mean);
        out.noise_top1 = std::abs(other->top1_agreement - one->top1_agreement);
      }
    }
    run.variants.push_back(std::move(out));
  }
  add_device_figures(devices, result, run);
  run.subsets = subset_figures(set, data, result);
  if (journal) {
    run.journal_failure = journal->failure().value_or("");
    if (!run.complete && run.journal_failure.empty()) {
      log_warn("what is finished lies in '{}'; the same command with --resume goes on from there", run.journal_folder);
    }
  }
  run.peak_memory_bytes = peak_memory_bytes();
  run.seconds_total = seconds_since(start);
  return run;
}

}  // namespace mxlm
