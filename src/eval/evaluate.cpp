#include "eval/evaluate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <stdexcept>
#include <unordered_map>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/memory.hpp"
#include "base/quote.hpp"
#include "eval/clusters.hpp"
#include "eval/journal.hpp"
#include "eval/noise.hpp"
#include "eval/ranking.hpp"
#include "eval/resume.hpp"
#include "eval/segment_runner.hpp"
#include "eval/team.hpp"
#include "io/file.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

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

/// Some windows of a set, with all that statistics want of them.
class SampleOf {
 public:
  SampleOf(const WindowSet& set, std::vector<const Window*> windows)
      : set_(&set), windows_(std::move(windows)), clusters_(make_clusters(windows_, set.cluster_unit)) {
    notes_.reserve(windows_.size());
    for (const Window* window : windows_) notes_.push_back(window->note);
  }
  [[nodiscard]] Sample get() const {
    return {.aggregate = set_->aggregate,
            .notes = notes_,
            .kind = set_->kind,
            .clusters = clusters_.of,
            .windows = windows_};
  }
  [[nodiscard]] const Clusters& clusters() const { return clusters_; }

 private:
  const WindowSet* set_;
  std::vector<const Window*> windows_;
  std::vector<WindowNote> notes_;
  Clusters clusters_;
};

SampleOf whole_sample(const WindowSet& set) {
  std::vector<const Window*> windows;
  windows.reserve(set.windows.size());
  for (const Window& window : set.windows) windows.push_back(&window);
  return {set, std::move(windows)};
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
  if (variant.arithmetic() == Arithmetic::bf16_rounded) {
    out.push_back({.tensor = "vector",
                   .role = "vector operations",
                   .weights = to_text(std::nullopt),
                   .activations = to_text(mx::kStages[0].format),
                   .outputs = to_text(mx::kStages[0].format)});
  }
  return out;
}

/// Figures of each subset name that documents carry, by first appearance; `set` has the windows of the result.
std::vector<SubsetResult> subset_figures(const WindowSet& set, const DocumentSource& data, const EngineResult& result) {
  std::vector<std::pair<std::string, std::vector<size_t>>> subsets;  // name, windows
  std::unordered_map<std::string, size_t> places;
  for (size_t w = 0; w < set.windows.size(); ++w) {
    const std::string& name = data.documents[static_cast<size_t>(set.windows[w].document)].subset;
    if (name.empty()) continue;
    const auto [place, added] = places.emplace(name, subsets.size());
    if (added) subsets.emplace_back(name, std::vector<size_t>{});
    subsets[place->second].second.push_back(w);
  }
  std::vector<SubsetResult> out;
  for (const auto& [name, windows] : subsets) {
    std::vector<std::vector<WindowScores>> scores(result.scores.size());
    std::vector<const Window*> some;
    some.reserve(windows.size());
    for (const size_t w : windows) some.push_back(&set.windows[w]);
    const SampleOf sample(set, std::move(some));
    for (size_t v = 0; v < scores.size(); ++v) {
      for (const size_t w : windows) scores[v].push_back(result.scores[v][w]);
    }
    out.push_back({.name = name,
                   .windows = static_cast<int64_t>(windows.size()),
                   .clusters = {sample.clusters().kind, static_cast<int64_t>(sample.clusters().number)},
                   .variants = summarize(scores, sample.get())});
  }
  return out;
}

/// `steps` with the sums of a variant, of which a journal without a window has none.
std::vector<LayerError> layer_errors(std::vector<LayerError> steps, std::span<const ErrorSums> sums) {
  for (size_t s = 0; s < std::min(steps.size(), sums.size()); ++s) steps[s].sums = sums[s];
  return steps;
}

/// What a run alone says of variant `v`, but for its weights.
VariantResult variant_result(const ModelSpec& model, const Variant& variant, size_t v, const EngineResult& result,
                             const VariantFigures& figures) {
  VariantResult out;
  out.name = variant.name;
  out.spec = v == 0 ? "" : variant.canonical();
  out.figures = figures;
  out.tokens_per_second = result.tokens_per_second(v);
  const VariantSeconds& seconds = result.seconds[v];
  out.seconds = {
      .load = 0, .tokenize = 0, .prepare = seconds.prepare, .forward = seconds.forward, .head = seconds.head};
  out.replaced = replaced_linears(model, variant, result.routes[v]);
  return out;
}

/// `parameters` of the Linears.
void add_weights(int64_t baseline_bytes, int64_t variant_bytes, int64_t parameters, VariantResult& out) {
  const auto bits = [parameters](int64_t bytes) {
    return 8 * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(parameters, 1));
  };
  out.weight_bytes_baseline = baseline_bytes;
  out.weight_bytes_variant = variant_bytes;
  out.weight_bits_baseline = bits(baseline_bytes);
  out.weight_bits_variant = bits(variant_bytes);
}

/// How far a variant's figures move under another order of float32 sums.
void add_noise(const VariantFigures& again, const NoiseFigures& noise, VariantResult& out) {
  out.noise_measured = true;
  out.noise = noise;
  out.noise_nll = std::abs(again.nll - out.figures.nll);
  if (const auto &one = out.figures.vs_baseline, &other = again.vs_baseline; one && other) {
    out.noise_kld = std::abs(other->kld_mean - one->kld_mean);
    out.noise_top1 = std::abs(other->top1_agreement - one->top1_agreement);
  }
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
               .adapter = model.adapter ? model.adapter->name() : "",
               .adapter_sha256 = model.adapter ? model.adapter->sha256() : "",
               .parameters = model.spec.parameters()};
  const DeviceSet& devices = options.devices;
  BackendKind backend = backend_kind(devices);
  if (team) {
    team->gather(run.model.sha256, backend, options.mixed_ranks);
    backend = team->backends();
  }
  std::unique_ptr<Journal> journal;
  if (!options.journal.folder.empty() || !options.journal.root.empty()) {
    journal = open_journal(
        options.journal, journal_facts(model, run.model.sha256, data, protocol, set.windows, compute, backend, options),
        set.windows.size());
  }
  SegmentRunner runner({.model = model,
                        .compute = compute,
                        .set = set,
                        .variants = variants,
                        .options = options,
                        .on_progress = on_progress,
                        .team = team ? &*team : nullptr,
                        .journal = journal.get()});
  if (journal) run.journal_folder = journal->folder().native();
  if (team) {
    run.ranks = team->ranks();
    log_info("{} ranks share the rounds{}", team->ranks(),
             journal ? fmt::format("; should one die, the same command with --journal {} --resume goes on, on any "
                                   "number of ranks",
                                   quote(run.journal_folder))
                     : "");
  }
  const EngineResult result = runner.run(/*reversed=*/false);
  if (result.windows.size() < set.windows.size()) {
    // Only finished windows have figures.
    std::vector<Window> finished;
    finished.reserve(result.windows.size());
    for (const size_t w : result.windows) finished.push_back(std::move(set.windows[w]));
    set.windows = std::move(finished);
  }
  const SampleOf sample = whole_sample(set);
  if (options.on_scores && !set.windows.empty())
    options.on_scores({.variants = variants, .windows = set.windows, .scores = result.scores});
  const auto figures = summarize(result.scores, sample.get());
  run.complete = result.complete;
  run.stopped = result.stopped;

  std::vector<VariantFigures> again;
  std::vector<NoiseFigures> noise;
  if (options.noise && result.complete) {
    const EngineResult reversed = runner.run(/*reversed=*/true);
    run.complete = reversed.complete;
    run.stopped = reversed.stopped;
    if (reversed.complete) {
      again = summarize(reversed.scores, sample.get());
      noise = measure_noise(result.scores, reversed.scores, sample.get());
      try {
        const auto plain = devices.make_backend(0), other = devices.make_backend(0, /*reversed=*/true);
        const double floor = measure_floor(model.spec, *plain, *other, compute, set.windows, set.kind);
        FileView::throw_if_changed();
        for (NoiseFigures& of_variant : noise) of_variant.floor_kld = floor;
      } catch (const Interrupted&) {
        run.complete = false;
      } catch (const FilesChanged& error) {
        run.complete = false;
        run.stopped = error.what();
      }
    }
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
      FileView::throw_if_changed();
    } catch (const Interrupted&) {
      run.complete = false;
    } catch (const FilesChanged& error) {
      run.complete = false;
      run.stopped = error.what();
      study = {};
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
  run.clusters = {sample.clusters().kind, static_cast<int64_t>(sample.clusters().number)};
  run.seconds_tokenize = tokenize_seconds;
  const int64_t parameters = linear_parameters(model.spec), baseline_bytes = weight_bytes(model.spec, variants[0]);
  for (size_t v = 0; v < variants.size(); ++v) {
    VariantResult out = variant_result(model.spec, variants[v], v, result, figures[v]);
    add_weights(baseline_bytes, weight_bytes(model.spec, variants[v]), parameters, out);
    out.seconds.tokenize = tokenize_seconds;
    if (v > 0) out.layers = layer_errors(runner.steps(), result.layer_errors[v]);
    if (!study.errors.empty()) out.linears = std::move(study.errors[v]);
    if (!again.empty()) add_noise(again[v], noise[v], out);
    run.variants.push_back(std::move(out));
  }
  run.pairs =
      compare_pairs(result.scores, figures, sample.get(),
                    variants.size() - 1 <= kPairVariants ? all_pairs(variants.size()) : neighbours(run.variants));
  run.forwards = runner.forwards();
  run.planned_memory_bytes = runner.planned_memory_bytes();
  run.devices = runner.devices();
  add_device_figures(devices, result, run);
  run.subsets = subset_figures(set, data, result);
  if (journal) {
    run.journal_failure = journal->failure().value_or("");
    if (!run.complete && run.windows > 0 && run.journal_failure.empty()) {
      log_warn("what is finished lies in '{}'; the same command with --resume goes on from there", run.journal_folder);
    }
  }
  run.peak_memory_bytes = peak_memory_bytes();
  run.seconds_total = seconds_since(start);
  return run;
}

}  // namespace mxlm
