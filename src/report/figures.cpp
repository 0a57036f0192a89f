#include "report/figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace mxlm::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kPercent = 100, kMilli = 1000, kMega = 1e6;

Source variant_source(const Run& run, size_t index) { return source(run) / "variants" / index; }

/// Makes the noise the error of `shown` where it is the larger one; both as the JSON has them, before `noise_scale`.
void use_noise(ShownFigure& shown, const Source& from, double noise, double noise_scale) {
  if (!(noise * noise_scale > shown.error.value * shown.error_scale)) return;
  shown.error = {from, noise};
  shown.error_scale = noise_scale;
}

}  // namespace

ShownFigure ppl_figure(const Source& from, const VariantFigures& figures) {
  const MemberNames& names = member_names(figures);
  return {.value = {from / names.ppl, figures.ppl}, .error = {from / names.ppl_stderr, figures.ppl_stderr}};
}

ShownFigure ppl_figure(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  const Source from = variant_source(run, index);
  ShownFigure out = ppl_figure(from, v.figures);
  if (v.noise) use_noise(out, from / "noise" / "nll", v.noise->nll, v.figures.ppl);
  return out;
}

ShownFigure ppl_change_figure(const Source& from, const VariantFigures& figures) {
  ShownFigure out;
  const Source against = from / "vs_baseline";
  const MemberNames& names = member_names(figures);
  out.value.source = against / names.ratio;
  out.error.source = against / names.ln_ratio_stderr;
  out.scale = kPercent;
  out.offset = -kPercent;
  out.sign = Sign::always;
  if (!figures.vs_baseline) return out;
  const VsBaseline& b = *figures.vs_baseline;
  out.value.value = b.ppl_ratio;
  out.error.value = b.ln_ppl_ratio_stderr;
  out.error_scale = kPercent * b.ppl_ratio;
  return out;
}

ShownFigure ppl_change_figure(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  const Source from = variant_source(run, index);
  ShownFigure out = ppl_change_figure(from, v.figures);
  if (v.noise && v.figures.vs_baseline) {
    use_noise(out, from / "noise" / "nll", v.noise->nll, kPercent * v.figures.vs_baseline->ppl_ratio);
  }
  return out;
}

ShownFigure kld_figure(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  const Source from = variant_source(run, index), against = from / "vs_baseline";
  ShownFigure out{.value = {against / "kld_mean", kNan},
                  .error = {against / "kld_stderr", kNan},
                  .scale = kMilli,
                  .error_scale = kMilli};
  if (!v.figures.vs_baseline) return out;
  out.value.value = v.figures.vs_baseline->kld_mean;
  out.error.value = v.figures.vs_baseline->kld_stderr;
  if (v.noise) use_noise(out, from / "noise" / "kld_mean", v.noise->kld_mean, kMilli);
  return out;
}

ShownFigure top1_figure(const Run& run, size_t index) {
  const Variant& v = run.variants[index];
  const Source from = variant_source(run, index), against = from / "vs_baseline";
  ShownFigure out{.value = {against / "top1_agreement", kNan},
                  .error = {against / "top1_stderr", kNan},
                  .scale = kPercent,
                  .error_scale = kPercent};
  if (!v.figures.vs_baseline) return out;
  out.value.value = v.figures.vs_baseline->top1_agreement;
  out.error.value = v.figures.vs_baseline->top1_stderr;
  if (v.noise) use_noise(out, from / "noise" / "top1_agreement", v.noise->top1_agreement, kPercent);
  return out;
}

Verdict verdict(double ln_ratio, double error, double noise) {
  Verdict out;
  if (!std::isfinite(ln_ratio) || !std::isfinite(error)) return out;
  if (ln_ratio == 0) {
    out.kind = Verdict::Kind::same;
    return out;
  }
  out.z = ln_ratio / error;  // infinite where the error is 0: a difference that no token contradicts
  const double size = std::abs(out.z);
  out.kind = size < kBorderline  ? Verdict::Kind::same
             : size < kDifferent ? Verdict::Kind::borderline
                                 : Verdict::Kind::different;
  if (out.kind != Verdict::Kind::same && std::abs(ln_ratio) <= noise) out.kind = Verdict::Kind::noise;
  return out;
}

Verdict verdict(const Variant& variant) {
  if (!variant.figures.vs_baseline) return {};
  const VsBaseline& b = *variant.figures.vs_baseline;
  return verdict(b.ln_ppl_ratio, b.ln_ppl_ratio_stderr, variant.noise ? variant.noise->nll : 0);
}

const char* verdict_text(const Verdict& verdict) {
  switch (verdict.kind) {
    case Verdict::Kind::unknown:
      return "n/a";
    case Verdict::Kind::same:
      return "within error";
    case Verdict::Kind::borderline:
      return "borderline";
    case Verdict::Kind::different:
      return "significant";
    case Verdict::Kind::noise:
      return "within noise";
  }
  return "n/a";
}

std::string z_text(const Verdict& verdict) {
  if (verdict.kind == Verdict::Kind::unknown) return "n/a";
  if (std::isinf(verdict.z)) return verdict.z > 0 ? "∞" : "-∞";
  const double size = std::abs(verdict.z);
  return size < 10    ? fmt::format("{:+.1f}", verdict.z)
         : size < 1e6 ? fmt::format("{:+.0f}", verdict.z)
                      : fmt::format("{:+.1e}", verdict.z);
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
