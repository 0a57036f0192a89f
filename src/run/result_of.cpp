#include "run/result_of.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <unordered_map>

#include "engine/plan.hpp"
#include "run/ranking.hpp"
#include "statistics/clusters.hpp"
#include "statistics/noise.hpp"

namespace mxlm {
namespace {

/// A policy in the words of --bos.
std::string bos_text(api::Bos policy) {
  switch (policy) {
    case api::Bos::from_template:
      return "template";
    case api::Bos::always:
      return "always";
    case api::Bos::never:
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

/// Some windows of a set, with their notes and clusters, as statistics need them.
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

/// The bytes of the weights of all Linears of the model, with the LM head, under a variant.
int64_t weight_bytes(std::span<const LinearSpec* const> linears, const ResolvedVariant& variant) {
  uint64_t sum = 0;
  for (size_t l = 0; l < linears.size(); ++l) {
    const OperandSpec& spec = variant.linear(l).weights;
    const WeightSource& weight = linears[l]->weight;
    if (!spec && weight.stored_bits > 0) {
      sum += static_cast<uint64_t>(weight.stored_bits * static_cast<double>(linears[l]->parameters()) / 8);
    } else {
      sum += kept_weight_bytes(linears[l]->parameters(), weight.matrix.cols, spec, weight.matrix.type);
    }
  }
  return static_cast<int64_t>(sum);
}

ReplacedLinear replaced(std::string tensor, std::string_view role, const ProductSpec& product) {
  return {.tensor = std::move(tensor),
          .role = std::string(role),
          .weights = to_text(product.weights),
          .activations = to_text(product.activations),
          .outputs = to_text(product.outputs)};
}

/// `routes` maps a module to its product path.
std::vector<ReplacedLinear> replaced_linears(std::span<const LinearSpec* const> linears, const ResolvedVariant& variant,
                                             const std::map<std::string, std::string>& routes) {
  std::vector<ReplacedLinear> out;
  for (size_t l = 0; l < linears.size(); ++l) {
    if (!variant.linear(l).replaced()) continue;
    const std::string& module = linears[l]->module;
    out.push_back(replaced(module + ".weight", role_name(linears[l]->role), variant.linear(l)));
    if (const auto route = routes.find(module); route != routes.end()) out.back().route = route->second;
  }
  if (variant.qk.replaced()) out.push_back(replaced("qk", "attention product", variant.qk));
  if (variant.pv.replaced()) out.push_back(replaced("pv", "attention product", variant.pv));
  if (variant.arithmetic == Arithmetic::bf16_rounded) {
    const OperandSpec bf16 = mx::kReferenceFormats[0].format;
    out.push_back(replaced("vector", "vector operations", {.weights = {}, .activations = bf16, .outputs = bf16}));
  }
  return out;
}

/// The figures of each subset that documents name, in the order of first appearance. `set` holds the windows of
/// `result`.
std::vector<SubsetResult> subset_figures(const WindowSet& set, const DocumentSource& data, const RunScores& result) {
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

/// A variant's error sums of each step. They are zero if no window has finished.
std::vector<LayerError> layer_errors(std::span<const Step> steps, std::span<const ErrorSums> sums) {
  std::vector<LayerError> out;
  for (size_t s = 0; s < steps.size(); ++s) {
    out.push_back({.layer = static_cast<int64_t>(steps[s].layer),
                   .part = steps[s].part(),
                   .sums = s < sums.size() ? sums[s] : ErrorSums{}});
  }
  return out;
}

/// Stores how far a variant's figures move under another order of float32 sums.
void add_noise(const VariantFigures& again, const NoiseFigures& noise, VariantResult& out) {
  out.noise_measured = true;
  out.noise = noise;
  out.noise_nll = std::abs(again.nll - out.figures.nll);
  if (const auto &one = out.figures.vs_baseline, &other = again.vs_baseline; one && other) {
    out.noise_kld = std::abs(other->kld_mean - one->kld_mean);
    out.noise_top1 = std::abs(other->top1_agreement - one->top1_agreement);
  }
}

void add_device_figures(GemmRoute gemm, const RunScores& result, RunResult& run) {
  run.gemm_route = gemm == GemmRoute::fast ? "fast" : "exact";
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

/// The results of all variants. Moves the errors out of `measured.study`.
std::vector<VariantResult> variant_results(const ModelSpec& model, const PreparedRun& run, Measurements& measured,
                                           std::span<const VariantFigures> figures, const Sample& sample) {
  const RunScores& result = measured.result;
  const std::vector<Step> steps = steps_of(model);
  const std::vector<const LinearSpec*> linears = model.linears();
  int64_t parameters = 0;
  for (const LinearSpec* linear : linears) parameters += linear->parameters();
  const auto bits = [parameters](int64_t bytes) {
    return 8 * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(parameters, 1));
  };
  std::vector<VariantFigures> again;
  std::vector<NoiseFigures> noise;
  if (measured.reversed) {
    again = summarize(measured.reversed->scores, sample);
    noise = measure_noise(result.scores, measured.reversed->scores, sample);
  }
  std::vector<VariantResult> all(run.variants.size());
  for (size_t v = 0; v < all.size(); ++v) {
    VariantResult& out = all[v];
    out.name = run.variants[v].name;
    out.spec = v == 0 ? "" : run.variants[v].canonical();
    out.figures = figures[v];
    out.tokens_per_second = result.tokens_per_second(v);
    const VariantSeconds& seconds = result.seconds[v];
    out.seconds = {.load = 0,
                   .tokenize = run.seconds_tokenize,
                   .prepare = seconds.prepare,
                   .forward = seconds.forward,
                   .head = seconds.head};
    out.replaced = replaced_linears(linears, run.resolved[v], result.routes[v]);
    out.weight_bytes_variant = weight_bytes(linears, run.resolved[v]);
    out.weight_bytes_baseline = all[0].weight_bytes_variant;
    out.weight_bits_baseline = bits(out.weight_bytes_baseline);
    out.weight_bits_variant = bits(out.weight_bytes_variant);
    if (v > 0) out.layers = layer_errors(steps, result.layer_errors[v]);
    if (!measured.study.errors.empty()) out.linears = std::move(measured.study.errors[v]);
    if (noise.empty()) continue;
    noise[v].floor_kld = measured.floor_kld;
    add_noise(again[v], noise[v], out);
  }
  return all;
}

}  // namespace

RunResult result_of(const LoadedModel& model, const DocumentSource& data, const ResolvedOptions& options,
                    const PreparedRun& run, Measurements measured, const RunCosts& costs) {
  const RunScores& result = measured.result;
  const SampleOf sample = whole_sample(run.set);
  const auto figures = summarize(result.scores, sample.get());
  RunResult out;
  out.model = run.model;
  out.data = {.name = data.name, .sha256 = data.sha256, .documents = static_cast<int64_t>(data.documents.size())};
  out.protocol = {.name = run.protocol.name,
                  .context = run.protocol.context,
                  .stride = run.set.stride,
                  .bos = bos_text(run.protocol.bos),
                  .aggregate = aggregate_text(run.set.aggregate),
                  .skipped_documents = run.set.skipped_documents};
  out.complete = measured.complete;
  out.stopped = measured.stopped;
  out.windows = static_cast<int64_t>(result.scores[0].size());
  out.clusters = {sample.clusters().kind, static_cast<int64_t>(sample.clusters().number)};
  out.seconds_tokenize = run.seconds_tokenize;
  out.variants = variant_results(model.spec, run, measured, figures, sample.get());
  out.pairs = compare_pairs(
      result.scores, figures, sample.get(),
      out.variants.size() - 1 <= kPairVariants ? all_pairs(out.variants.size()) : neighbours(out.variants));
  out.exponents = std::move(measured.study.exponents);
  out.studied_windows = measured.study.windows;
  out.studied_tokens = measured.study.tokens;
  out.forwards = costs.forwards;
  out.planned_memory_bytes = costs.planned_memory_bytes;
  out.devices = costs.devices;
  add_device_figures(options.devices.gemm, result, out);
  out.subsets = subset_figures(run.set, data, result);
  return out;
}

}  // namespace mxlm
