#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.hpp"
#include "report/exponents.hpp"
#include "report/report.hpp"

namespace mxlm {
namespace {

using Json = nlohmann::ordered_json;

Json percentiles(const std::map<std::string, double>& values) {
  std::vector<std::pair<std::string, double>> sorted(values.begin(), values.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return std::strtod(a.first.c_str(), nullptr) < std::strtod(b.first.c_str(), nullptr);
  });
  Json out = Json::object();
  for (const auto& [key, value] : sorted) out[key] = value;
  return out;
}

/// Members of protocol `self`, which does not measure a perplexity: its figures have names that say so, beside the
/// figures of every protocol.
void name_for_self(Json& out, std::initializer_list<std::pair<const char*, const char*>> names) {
  for (const auto& [name, other] : names) out[other] = out[name];
}

Json vs_baseline(const VsBaseline& v) {
  Json out = {{"ppl_ratio", v.ppl_ratio},
              {"ln_ppl_ratio", v.ln_ppl_ratio},
              {"ln_ppl_ratio_stderr", v.ln_ppl_ratio_stderr},
              {"ln_ppl_ratio_stderr_windows", v.ln_ppl_ratio_stderr_windows},
              {"correlation", v.correlation},
              {"kld_mean", v.kld_mean},
              {"kld_stderr", v.kld_stderr},
              {"kld_stderr_windows", v.kld_stderr_windows},
              {"kld_median", v.kld_median},
              {"kld_max", v.kld_max},
              {"kld_percentiles", percentiles(v.kld_percentiles)},
              {"kld_reverse_mean", v.kld_reverse_mean},
              {"kld_reverse_stderr", v.kld_reverse_stderr},
              {"kld_reverse_stderr_windows", v.kld_reverse_stderr_windows},
              {"top1_agreement", v.top1_agreement},
              {"top1_stderr", v.top1_stderr},
              {"top1_stderr_windows", v.top1_stderr_windows},
              {"top1_interval", std::isfinite(v.top1_low) ? Json{v.top1_low, v.top1_high} : Json(nullptr)},
              {"top1_error", std::isfinite(v.top1_error) ? Json(v.top1_error) : Json(nullptr)},
              {"delta_p_mean", v.delta_p_mean},
              {"delta_p_mean_stderr_windows", v.delta_p_mean_stderr_windows},
              {"delta_p_rms", v.delta_p_rms},
              {"delta_p_rms_stderr", v.delta_p_rms_stderr},
              {"delta_p_rms_stderr_windows", v.delta_p_rms_stderr_windows},
              {"delta_p_percentiles", percentiles(v.delta_p_percentiles)}};
  if (v.jensen_shannon_mean) {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    out["jensen_shannon_mean"] = *v.jensen_shannon_mean;
    out["jensen_shannon_stderr"] = v.jensen_shannon_stderr.value_or(unknown);
    out["jensen_shannon_stderr_windows"] = v.jensen_shannon_stderr_windows.value_or(unknown);
  }
  if (v.flips) {
    out["flips"] = {{"right_to_wrong", v.flips->right_to_wrong},
                    {"right_to_wrong_stderr_windows", v.flips->right_to_wrong_stderr_windows},
                    {"wrong_to_right", v.flips->wrong_to_right},
                    {"wrong_to_right_stderr_windows", v.flips->wrong_to_right_stderr_windows}};
    out["accuracy_difference"] = v.flips->accuracy_difference;
    out["accuracy_difference_stderr_windows"] = v.flips->accuracy_difference_stderr_windows;
  }
  return out;
}

Json clusters(const ClusterCount& c) { return {{"kind", c.kind}, {"number", c.number}}; }

/// Adds the figures of a variant over all windows, or over a subset.
void add_figures(Json& out, const VariantFigures& figures) {
  out["nll"] = figures.nll;
  out["nll_stderr_windows"] = figures.nll_stderr_windows;
  out["ppl"] = figures.ppl;
  out["ppl_stderr"] = figures.ppl_stderr;
  out["ppl_stderr_windows"] = figures.ppl_stderr_windows;
  out["tokens"] = figures.tokens;
  out["nonfinite"] = figures.nonfinite;
  if (std::isfinite(figures.accuracy)) {
    out["accuracy"] = figures.accuracy;
    out["accuracy_stderr_windows"] = figures.accuracy_stderr_windows;
  }
  out["vs_baseline"] = figures.vs_baseline ? vs_baseline(*figures.vs_baseline) : Json(nullptr);
  if (figures.vs_baseline) {
    const Power power = power_of(figures);
    const auto known = [](double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); };
    out["power"] = {{"tokens_ppl_1_percent", known(power.ppl_tokens)}, {"tokens_kld_1_mnat", known(power.kld_tokens)}};
  }
  if (figures.rolling) {
    const RollingFigures& rolling = *figures.rolling;
    out["word_perplexity"] = rolling.word_perplexity;
    out["word_perplexity_stderr"] = rolling.word_perplexity_stderr;
    out["word_perplexity_stderr_windows"] = rolling.word_perplexity_stderr_windows;
    out["byte_perplexity"] = rolling.byte_perplexity;
    out["bits_per_byte"] = rolling.bits_per_byte;
    out["bits_per_byte_stderr_windows"] = rolling.bits_per_byte_stderr_windows;
    out["words"] = rolling.words;
    out["bytes"] = rolling.bytes;
    if (figures.vs_baseline) {
      out["vs_baseline"]["ln_word_perplexity_ratio"] = rolling.ln_word_ratio;
      out["vs_baseline"]["ln_word_perplexity_ratio_stderr_windows"] = rolling.ln_word_ratio_stderr_windows;
    }
  }
  if (figures.self) {
    name_for_self(out, {{"nll", "self_nll"},
                        {"nll_stderr_windows", "self_nll_stderr_windows"},
                        {"ppl", "self_perplexity"},
                        {"ppl_stderr", "self_perplexity_stderr"},
                        {"ppl_stderr_windows", "self_perplexity_stderr_windows"}});
    out["mean_entropy"] = figures.self->entropy;
    out["mean_entropy_stderr"] = figures.self->entropy_stderr;
    out["mean_entropy_stderr_windows"] = figures.self->entropy_stderr_windows;
    if (figures.vs_baseline) {
      name_for_self(out["vs_baseline"], {{"ppl_ratio", "self_perplexity_ratio"},
                                         {"ln_ppl_ratio", "ln_self_perplexity_ratio"},
                                         {"ln_ppl_ratio_stderr", "ln_self_perplexity_ratio_stderr"},
                                         {"ln_ppl_ratio_stderr_windows", "ln_self_perplexity_ratio_stderr_windows"}});
    }
  }
}

/// Undefined figures are null without a warning: nothing differs, or nothing exists.
Json sqnr(const ErrorSums& sums) { return sums.difference == 0 ? Json(nullptr) : Json(sums.sqnr_db()); }
Json cosine(const ErrorSums& sums) {
  if (sums.reference == 0 && sums.other == 0) return 1;
  return sums.reference == 0 || sums.other == 0 ? Json(nullptr) : Json(sums.cosine());
}

Json layers(const std::vector<LayerError>& errors) {
  Json out = Json::array();
  for (const LayerError& e : errors) {
    out.push_back({{"layer", e.layer}, {"part", e.part}, {"sqnr_db", sqnr(e.sums)}, {"cosine", cosine(e.sums)}});
  }
  return out;
}

Json operand_error(const std::optional<QuantizationError>& e) {
  if (!e || e->elements == 0) return nullptr;
  const auto share = [&](int64_t count) { return static_cast<double>(count) / static_cast<double>(e->elements); };
  Json out = {{"sqnr_db", sqnr(e->sums)}, {"cosine", cosine(e->sums)}, {"flushed", share(e->flushed)}};
  if (!e->blocks) return out;
  out["saturated"] = share(e->saturated);
  out["subnormal"] = share(e->subnormal);
  const auto rows = static_cast<double>(std::max<int64_t>(e->rows, 1));
  out["spread"] = {{"mean", static_cast<double>(e->spread_sum) / rows}, {"max", e->spread_max}};
  return out;
}

Json linears(const std::vector<LinearError>& errors) {
  Json out = Json::array();
  for (const LinearError& e : errors) {
    out.push_back({{"tensor", e.tensor},
                   {"role", e.role},
                   {"weight", operand_error(e.weight)},
                   {"activation", operand_error(e.activation)},
                   {"output_sqnr_db", sqnr(e.output)},
                   {"output_cosine", cosine(e.output)}});
  }
  return out;
}

Json sweep_point(const SweepPoint& p) {
  return {{"format", p.format},
          {"block", p.block},
          {"scale_bits", p.scale_bits},
          {"rule", p.rule},
          {"round", p.round},
          {"roles", p.roles},
          {"unit", p.unit.empty() ? Json(nullptr) : Json(p.unit)},
          {"bits_saved", p.bits_saved},
          // Undefined, rather than not finite, if no bits are saved.
          {"kld_per_bit", p.bits_saved > 0 ? Json(p.kld_per_bit) : Json(nullptr)},
          {"pareto", p.pareto}};
}

Json pairs(const RunResult& r) {
  Json out = Json::array();
  for (const PairFigures& p : r.pairs) {
    out.push_back({{"a", r.variants.at(p.a).name},
                   {"b", r.variants.at(p.b).name},
                   {"ln_ppl_ratio", p.ln_ppl_ratio},
                   {"ln_ppl_ratio_stderr", p.ln_ppl_ratio_stderr},
                   {"ln_ppl_ratio_stderr_windows", p.ln_ppl_ratio_stderr_windows},
                   {"kld_difference", p.kld_difference},
                   {"kld_difference_stderr", p.kld_difference_stderr},
                   {"kld_difference_stderr_windows", p.kld_difference_stderr_windows}});
  }
  return out;
}

Json variant(const VariantResult& v) {
  Json out = {{"name", v.name}, {"spec", v.spec}};
  add_figures(out, v.figures);
  out["tokens_per_second"] = v.tokens_per_second;
  out["seconds"] = {{"load", v.seconds.load},
                    {"tokenize", v.seconds.tokenize},
                    {"prepare", v.seconds.prepare},
                    {"forward", v.seconds.forward},
                    {"head", v.seconds.head}};
  Json replaced = Json::array();
  for (const ReplacedLinear& r : v.replaced) {
    replaced.push_back(
        {{"tensor", r.tensor}, {"role", r.role}, {"weights", r.weights}, {"activations", r.activations}});
    if (r.outputs != "none") replaced.back()["outputs"] = r.outputs;
    if (!r.route.empty()) replaced.back()["route"] = r.route;
  }
  out["replaced"] = std::move(replaced);
  out["weight_bytes"] = {{"baseline", v.weight_bytes_baseline}, {"variant", v.weight_bytes_variant}};
  out["weight_bits"] = {{"baseline", v.weight_bits_baseline}, {"variant", v.weight_bits_variant}};
  if (!v.layers.empty()) out["layers"] = layers(v.layers);
  if (!v.linears.empty()) out["linears"] = linears(v.linears);
  if (v.sweep) out["sweep"] = sweep_point(*v.sweep);
  if (v.noise_measured) {
    const auto known = [](double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); };
    out["noise"] = {{"nll", v.noise_nll},
                    {"kld_mean", v.noise_kld},
                    {"top1_agreement", v.noise_top1},
                    {"nll_sd", known(v.noise.nll_sd)},
                    {"ln_ppl_ratio_sd", known(v.noise.ln_ppl_ratio_sd)},
                    {"kld_sd", known(v.noise.kld_sd)},
                    {"top1_sd", known(v.noise.top1_sd)},
                    {"floor_kld", known(v.noise.floor_kld)},
                    {"floor_flips", known(v.noise.floor_flips)}};
  }
  return out;
}

Json subset(const SubsetResult& s, const std::vector<VariantResult>& variants) {
  Json out = {
      {"name", s.name}, {"windows", s.windows}, {"clusters", clusters(s.clusters)}, {"variants", Json::array()}};
  for (size_t v = 0; v < s.variants.size(); ++v) {
    Json figures = {{"name", v < variants.size() ? variants[v].name : ""}};
    add_figures(figures, s.variants[v]);
    out["variants"].push_back(std::move(figures));
  }
  return out;
}

/// Figures that were not measured are null.
Json devices(const std::vector<DeviceUse>& uses) {
  Json out = Json::array();
  for (const DeviceUse& use : uses) {
    out.push_back({{"index", use.index},
                   {"name", use.name},
                   {"peak_memory_bytes", use.peak_memory_bytes > 0 ? Json(use.peak_memory_bytes) : Json(nullptr)},
                   {"energy_joules", use.energy_joules ? Json(*use.energy_joules) : Json(nullptr)},
                   {"rounds", use.rounds}});
  }
  return out;
}

Json machine_json(const MachineInfo& machine) {
  Json out = {{"cpu", machine.cpu},      {"backend", machine.backend}, {"os", machine.os},
              {"cores", machine.cores},  {"threads", machine.threads}, {"memory_bytes", machine.memory_bytes},
              {"devices", Json::array()}};
  for (const DeviceInfo& d : machine.devices) {
    out["devices"].push_back({{"name", d.name},
                              {"index", d.index},
                              {"architecture", d.architecture},
                              {"memory_bytes", d.memory_bytes},
                              {"driver", d.driver.empty() ? Json(nullptr) : Json(d.driver)}});
  }
  return out;
}

Json run(const RunResult& r) {
  Json out = {
      {"model",
       {{"name", r.model.name},
        {"family", r.model.family},
        {"parameters", r.model.parameters},
        {"dtype", r.model.dtype},
        {"compute_dtype", r.model.compute_dtype},
        {"revision", r.model.revision},
        {"sha256", r.model.sha256}}},
      {"data", {{"name", r.data.name}, {"documents", r.data.documents}, {"sha256", r.data.sha256}}},
      {"command", r.command},
      {"complete", r.complete},
      {"stopped", r.stopped.empty() ? Json(nullptr) : Json(r.stopped)},
      {"peak_memory_bytes", r.peak_memory_bytes},
      {"planned_memory_bytes", r.planned_memory_bytes > 0 ? Json(r.planned_memory_bytes) : Json(nullptr)},
      {"protocol",
       {{"name", r.protocol.name},
        {"context", r.protocol.context},
        {"bos", r.protocol.bos},
        {"aggregate", r.protocol.aggregate},
        {"skipped_documents", r.protocol.skipped_documents}}},
      {"windows", r.windows},
      {"clusters", clusters(r.clusters)},
      {"forwards", r.forwards},
      {"seconds",
       {{"total", r.seconds_total},
        {"load", r.seconds_load},
        {"tokenize", r.seconds_tokenize},
        {"rounds", r.seconds_rounds},
        {"by_round", r.seconds_by_round}}},
      {"devices", devices(r.devices)},
      {"ranks", r.ranks},
      {"joules_per_token", r.joules_per_token ? Json(*r.joules_per_token) : Json(nullptr)},
      {"gemm",
       {{"route", r.gemm_route},
        {"products", r.gemm_counts.products},
        {"rows", r.gemm_counts.rows},
        {"fell_back", r.gemm_counts.fell_back}}},
      {"subsets", Json::array()},
      {"variants", Json::array()},
  };
  if (!r.model.adapter.empty()) {
    out["model"]["adapter"] = {{"name", r.model.adapter}, {"sha256", r.model.adapter_sha256}};
  }
  if (r.protocol.stride > 0) out["protocol"]["stride"] = r.protocol.stride;
  for (const SubsetResult& s : r.subsets) out["subsets"].push_back(subset(s, r.variants));
  for (const VariantResult& v : r.variants) out["variants"].push_back(variant(v));
  if (!r.pairs.empty()) out["pairs"] = pairs(r);
  if (r.studied_windows > 0) out["studied"] = {{"windows", r.studied_windows}, {"tokens", r.studied_tokens}};
  if (!r.exponents.empty()) out["exponents"] = exponents_json(r.exponents);
  return out;
}

/// JSON has neither NaN nor Inf: replaces them by null, and notes their places. Errors by cluster are not noted,
/// because one cluster has none and the table says so.
void nullify(Json& node, const std::string& path, std::vector<std::string>& found) {
  if (node.is_number_float() && !std::isfinite(node.get<double>())) {
    node = nullptr;
    if (!path.ends_with("_stderr_windows")) found.push_back(path);
  } else if (node.is_object()) {
    for (auto& [key, value] : node.items()) nullify(value, path.empty() ? key : fmt::format("{}.{}", path, key), found);
  } else if (node.is_array()) {
    for (size_t i = 0; i < node.size(); ++i) nullify(node[i], fmt::format("{}[{}]", path, i), found);
  }
}

}  // namespace

std::string render_json(const EvalResult& result) {
  Json out = {{"schema", "mxlm.eval/1"},
              {"version", MXLM_VERSION},
              {"machine", machine_json(result.machine)},
              {"runs", Json::array()}};
  for (const RunResult& r : result.runs) out["runs"].push_back(run(r));
  std::vector<std::string> not_finite;
  nullify(out, "", not_finite);
  if (!not_finite.empty()) {
    constexpr size_t shown = 4;
    const size_t count = not_finite.size();
    not_finite.resize(std::min(count, shown));
    log_warn("{} figures are not finite and null in the JSON: {}{}", count, fmt::join(not_finite, ", "),
             count > shown ? ", ..." : "");
  }
  // File names and the command line may not be UTF-8.
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace mxlm
