#include "report/error_words.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/quote.hpp"
#include "report/digits.hpp"
#include "report/text_layout.hpp"
#include "report/verdict.hpp"
#include "statistics/clusters.hpp"

namespace mxlm {
namespace {

/// The names of a few variants, or the number of many.
std::string listed(const RunResult& run, const std::vector<size_t>& indices) {
  constexpr size_t kMostNames = 3;
  if (indices.size() > kMostNames) return fmt::format("{} variants", indices.size());
  std::vector<std::string> names;
  names.reserve(indices.size());
  for (const size_t i : indices) names.push_back(printable_text(run.variants[i].name));
  return fmt::format("{}", fmt::join(names, "; "));
}

/// A sentence about the variants of one kind, or "".
template <typename Test>
std::string listed_where(const RunResult& run, Test test) {
  std::vector<size_t> indices;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    if (test(i)) indices.push_back(i);
  }
  return indices.empty() ? std::string{} : listed(run, indices);
}

const NoiseFigures* noise_of(const VariantResult& variant) {
  return variant.noise_measured && std::isfinite(variant.noise.floor_kld) ? &variant.noise : nullptr;
}

Size variant_size(const VariantResult& variant) {
  const auto& b = variant.figures.vs_baseline;
  if (!b) return Size::unknown;
  const NoiseFigures* noise = noise_of(variant);
  return size_of(b->kld_mean, noise == nullptr ? std::nullopt : std::optional(noise->floor_kld));
}

}  // namespace

std::string clusters_text(const ClusterCount& clusters) {
  const bool one = clusters.number == 1;
  if (clusters.kind == "window group") {
    return fmt::format("{} group{} of windows", count_text(clusters.number), one ? "" : "s");
  }
  return fmt::format("{} {}{}", count_text(clusters.number), clusters.kind, one ? "" : "s");
}

std::string error_words(const ClusterCount& clusters) {
  const bool documents = clusters.kind == "document" || clusters.kind == "page";
  if (clusters.number < 2) {
    return fmt::format("± is n/a: an error needs two {}, and there is one; run more of the text.",
                       documents ? clusters.kind + "s" : fmt::format("windows of {} tokens in all", kClusterTokens));
  }
  std::string out =
      fmt::format("± is one standard error, for other {}, from {}.",
                  documents ? clusters.kind + "s like these" : "windows of this text", clusters_text(clusters));
  if (clusters.number < static_cast<int64_t>(kFewClusters)) {
    out += fmt::format(" So few (under {}) leave ± itself uncertain by a third or more.", kFewClusters);
  }
  return out;
}

std::string verdict_words(const RunResult& run) {
  if (run.variants.size() < 2) return {};
  std::vector<Difference> differences;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const VariantFigures& f = run.variants[i].figures;
    const VsBaseline b = f.vs_baseline.value_or(VsBaseline{});
    differences.push_back({.value = b.ln_ppl_ratio, .error = b.ln_ppl_ratio_stderr_windows, .clusters = f.clusters});
  }
  const std::vector<Verdict> judged = verdicts(differences);
  std::vector<std::string> sizes;
  const auto add = [&](Size size, const std::string& words) {
    const std::string names = listed_where(run, [&](size_t i) { return variant_size(run.variants[i]) == size; });
    if (!names.empty()) sizes.push_back(fmt::format("{}: {}", words, names));
  };
  constexpr double milli = 1000;
  add(Size::rounding, "no more than rounding");
  add(Size::alike, fmt::format("like the baseline (under {:.0f} mnats)", kAlikeNats * milli));
  add(Size::visible, "visible");
  add(Size::broken, fmt::format("broken (over {:.0f} mnats)", kBrokenNats * milli));
  if (sizes.empty()) return {};
  std::string out = fmt::format("By KL, {}.", fmt::join(sizes, ", "));
  const auto unknown = [](const Verdict& v) { return v.kind == Verdict::Kind::unknown; };
  if (std::all_of(judged.begin(), judged.end(), unknown)) return out;
  const std::string what = run.variants[0].figures.self ? "self-PPL" : "PPL";
  const std::string changed =
      listed_where(run, [&](size_t i) { return judged[i - 1].kind == Verdict::Kind::different; });
  const std::string how = differences.size() == 1
                              ? "three errors, Student's t"
                              : fmt::format("three errors, Student's t, Holm over {} variants", differences.size());
  out += changed.empty() ? fmt::format(" No change of {} is significant ({}).", what, how)
                         : fmt::format(" The change of {} is significant ({}) of {}.", what, how, changed);
  return out;
}

std::string noise_words(const RunResult& run) {
  if (run.variants.empty() || !run.variants[0].noise_measured) return {};
  std::string out =
      "noise: standard deviation of the figure above it over orders of float32 sums; ± holds one such order.";
  const NoiseFigures* noise = noise_of(run.variants[0]);
  if (noise == nullptr) return out;
  constexpr double milli = 1000, percent = 100;
  out += fmt::format(" The baseline against itself in another order: KL {} mnats, {} % of top-1 changed.",
                     significant_text(noise->floor_kld * milli, 2), significant_text(noise->floor_flips * percent, 2));
  const std::string rounding = listed_where(run, [&](size_t i) {
    const auto& b = run.variants[i].figures.vs_baseline;
    return b && (b->kld_mean <= kFloorMargin * noise->floor_kld ||
                 1 - b->top1_agreement <= kFloorMargin * noise->floor_flips);
  });
  if (!rounding.empty()) {
    out += fmt::format(" KL or top-1 up to {} times that is rounding: {}.", kFloorMargin, rounding);
  }
  // A floor of a tenth of a figure changes the figure's first digits.
  const std::string blurred = listed_where(run, [&](size_t i) {
    const auto& b = run.variants[i].figures.vs_baseline;
    return b && b->kld_mean < 10 * noise->floor_kld;
  });
  if (!blurred.empty() && run.model.compute_dtype != "float32") {
    out += fmt::format(" --dtype float32 would see more of: {}.", blurred);
  }
  return out;
}

std::string power_words(const RunResult& run) {
  double least = 0, most = 0;
  for (size_t i = 1; i < run.variants.size(); ++i) {
    const double tokens = power_of(run.variants[i].figures).ppl_tokens;
    if (!std::isfinite(tokens) || tokens <= 0) continue;
    least = least == 0 ? tokens : std::min(least, tokens);
    most = std::max(most, tokens);
  }
  if (most == 0) return {};
  const std::string low = significant_text(least, 2), high = significant_text(most, 2);
  return fmt::format("A change of {} by 1 % is three errors from about {} tokens on.",
                     run.variants[0].figures.self ? "self-PPL" : "PPL",
                     low == high ? low : fmt::format("{} to {}", low, high));
}

std::string power_forecast(int64_t tokens) {
  return fmt::format(
      "It scores {} tokens. How many it takes for a change of PPL by 1 % to be three errors, a run says. For "
      "comparison, booklet-7m took 500 to 1,300 on two novels and WikiText-2 for linear=mxint8, 3,700 to 12,000 for "
      "linear=mxfp8, and 79,000 to 260,000 for linear=mxfp4.",
      count_text(tokens));
}

}  // namespace mxlm
