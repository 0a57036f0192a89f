#include "report/figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/error_words.hpp"

namespace mxlm::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kPercent = 100, kMilli = 1000, kMega = 1e6;

Source variant_source(const Run& run, size_t index) { return source(run) / "variants" / index; }

/// The error by cluster, or the error by token in files without errors by cluster.
Figure error_of(const VariantFigures& figures, const Source& clustered, double by_cluster, const Source& by_token,
                double token_error) {
  return figures.clusters > 0 ? Figure{clustered, by_cluster} : Figure{by_token, token_error};
}

}  // namespace

ShownFigure ppl_figure(const Source& from, const VariantFigures& figures) {
  const MemberNames& names = member_names(figures);
  return {.value = {from / names.ppl, figures.ppl},
          .error = error_of(figures, from / names.ppl_stderr_windows, figures.ppl_stderr_windows,
                            from / names.ppl_stderr, figures.ppl_stderr)};
}

ShownFigure ppl_figure(const Run& run, size_t index) {
  return ppl_figure(variant_source(run, index), run.variants[index].figures);
}

ShownFigure ppl_change_figure(const Source& from, const VariantFigures& figures) {
  ShownFigure out;
  const Source against = from / "vs_baseline";
  const MemberNames& names = member_names(figures);
  out.value.source = against / names.ratio;
  out.error.source = against / names.ln_ratio_stderr_windows;
  out.scale = kPercent;
  out.offset = -kPercent;
  out.sign = Sign::always;
  if (!figures.vs_baseline) return out;
  const VsBaseline& b = *figures.vs_baseline;
  out.value.value = b.ppl_ratio;
  out.error = error_of(figures, out.error.source, b.ln_ppl_ratio_stderr_windows, against / names.ln_ratio_stderr,
                       b.ln_ppl_ratio_stderr);
  out.error_scale = kPercent * b.ppl_ratio;
  return out;
}

ShownFigure ppl_change_figure(const Run& run, size_t index) {
  return ppl_change_figure(variant_source(run, index), run.variants[index].figures);
}

ShownFigure kld_figure(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  const Source against = variant_source(run, index) / "vs_baseline";
  ShownFigure out{.value = {against / "kld_mean", kNan},
                  .error = {against / "kld_stderr_windows", kNan},
                  .scale = kMilli,
                  .error_scale = kMilli};
  if (!v.figures.vs_baseline) return out;
  const VsBaseline& b = *v.figures.vs_baseline;
  out.value.value = b.kld_mean;
  out.error = error_of(v.figures, out.error.source, b.kld_stderr_windows, against / "kld_stderr", b.kld_stderr);
  return out;
}

ShownFigure top1_figure(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  const Source against = variant_source(run, index) / "vs_baseline";
  ShownFigure out{.value = {against / "top1_agreement", kNan},
                  .error = {against / "top1_error", kNan},
                  .scale = kPercent,
                  .error_scale = kPercent};
  if (!v.figures.vs_baseline) return out;
  const VsBaseline& b = *v.figures.vs_baseline;
  out.value.value = b.top1_agreement;
  out.error = error_of(v.figures, out.error.source, b.top1_error, against / "top1_stderr", b.top1_stderr);
  return out;
}

std::vector<Verdict> verdicts(const Run& run) {
  std::vector<Difference> differences;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const ShownFigure change = ppl_change_figure(run, i);
    const VariantFigures& figures = run.variants[i].figures;
    differences.push_back({.value = figures.vs_baseline ? figures.vs_baseline->ln_ppl_ratio : kNan,
                           .error = figures.vs_baseline ? change.error.value : kNan,
                           .clusters = figures.clusters});
  }
  std::vector<Verdict> out{{}};
  for (Verdict& v : verdicts(differences)) out.push_back(v);
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const Variant& v = run.variants[i];
    if (!v.figures.vs_baseline) continue;
    out[i].size = size_of(v.figures.vs_baseline->kld_mean, v.noise ? v.noise->floor() : std::nullopt);
    const bool changed = out[i].kind == Verdict::Kind::borderline || out[i].kind == Verdict::Kind::different;
    if (changed && v.noise && std::abs(v.figures.vs_baseline->ln_ppl_ratio) <= v.noise->of_ratio()) {
      out[i].kind = Verdict::Kind::noise;
    }
  }
  return out;
}

std::string error_note(const Run& run) {
  if (run.clusters.number > 0) return error_words(run.clusters);
  return "± is one standard error that takes tokens as independent, which is up to half of the true one; the file was "
         "written before errors were clustered.";
}

SizeAxis size_axis(const Run& run) {
  const bool all = std::all_of(run.variants.begin(), run.variants.end(),
                               [](const Variant& v) { return std::isfinite(v.weight_bits_variant); });
  return all && !run.variants.empty() ? SizeAxis::bits : SizeAxis::megabytes;
}

Figure size_figure(const Run& run, size_t index, SizeAxis axis) {
  const Source from = variant_source(run, index);
  const Variant& v = run.variants[index];
  if (axis == SizeAxis::bits) return {from / "weight_bits" / "variant", v.weight_bits_variant};
  return {from / "weight_bytes" / "variant", v.weight_bytes_variant / kMega};
}

std::vector<size_t> pareto_front(const Run& run, SizeAxis axis) {
  struct Point {
    size_t index;
    double size, kld;
  };
  std::vector<Point> points;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const Point point{i, size_figure(run, i, axis).value, kld_figure(run, i).value.value};
    if (std::isfinite(point.size) && std::isfinite(point.kld)) points.push_back(point);
  }
  std::stable_sort(points.begin(), points.end(),
                   [](const Point& a, const Point& b) { return a.size != b.size ? a.size < b.size : a.kld < b.kld; });
  std::vector<size_t> out;
  double least = std::numeric_limits<double>::infinity();
  for (const Point& point : points) {
    if (!(point.kld < least)) continue;
    least = point.kld;
    out.push_back(point.index);
  }
  return out;
}

std::string quantity_name(const Run& run) {
  return !run.variants.empty() && run.variants[0].figures.self ? "self-perplexity" : "perplexity";
}

std::string short_quantity_name(const Run& run) {
  return !run.variants.empty() && run.variants[0].figures.self ? "self-PPL" : "PPL";
}

std::string model_name(const Run& run) { return run.model.name.empty() ? "a model without a name" : run.model.name; }

std::string short_name(const Variant& variant, size_t columns) { return shorten(variant.name, columns); }

}  // namespace mxlm::report
