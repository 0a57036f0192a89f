#include "run/ranking.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace mxlm {
namespace {

/// The mean KL divergence; infinite if it is unknown or not finite.
double divergence(const VariantResult& variant) {
  const auto& b = variant.figures.vs_baseline;
  return b && std::isfinite(b->kld_mean) ? b->kld_mean : HUGE_VAL;
}

double divergence_per_bit(const VariantResult& variant) {
  const double saved = variant.weight_bits_baseline - variant.weight_bits_variant;
  return saved > 0 ? divergence(variant) / saved : HUGE_VAL;
}

}  // namespace

std::vector<size_t> ranking(std::span<const VariantResult> variants) {
  std::vector<size_t> out;
  for (size_t v = 1; v < variants.size(); ++v) out.push_back(v);
  std::stable_sort(out.begin(), out.end(), [&](size_t a, size_t b) {
    const double x = divergence_per_bit(variants[a]), y = divergence_per_bit(variants[b]);
    return x != y ? x < y : divergence(variants[a]) < divergence(variants[b]);
  });
  return out;
}

std::vector<std::optional<size_t>> rivals(std::span<const VariantResult> variants) {
  std::vector<size_t> order;
  for (size_t v = 1; v < variants.size(); ++v) order.push_back(v);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return variants[a].weight_bits_variant < variants[b].weight_bits_variant;
  });
  std::vector<std::optional<size_t>> out(variants.size());
  std::optional<size_t> best;  // of all variants with at most as many bits
  for (size_t i = 0, end = 0; i < order.size(); ++i) {
    for (; end < order.size() && !(variants[order[end]].weight_bits_variant > variants[order[i]].weight_bits_variant);
         ++end) {
      const double here = divergence(variants[order[end]]), least = best ? divergence(variants[*best]) : HUGE_VAL;
      if (!best || here < least || (here == least && order[end] < *best)) best = order[end];
    }
    if (divergence(variants[*best]) < divergence(variants[order[i]])) out[order[i]] = best;
  }
  return out;
}

std::vector<std::pair<size_t, size_t>> neighbours(std::span<const VariantResult> variants) {
  std::set<std::pair<size_t, size_t>> out;
  const auto add = [&](size_t a, size_t b) {
    if (a != b) out.insert(std::minmax(a, b));
  };
  const std::vector<size_t> order = ranking(variants);
  const std::vector<std::optional<size_t>> others = rivals(variants);
  for (size_t i = 0; i < order.size(); ++i) {
    add(order.front(), order[i]);
    if (i > 0) add(order[i - 1], order[i]);
    if (const auto other = others[order[i]]) add(*other, order[i]);
  }
  return {out.begin(), out.end()};
}

void rate_points(RunResult& run) {
  const auto kld = [](const VariantResult& v) {
    return v.figures.vs_baseline ? v.figures.vs_baseline->kld_mean : 0.0;  // the baseline's own is zero
  };
  for (VariantResult& variant : run.variants) {
    if (!variant.sweep) continue;
    SweepPoint& point = *variant.sweep;
    point.bits_saved = variant.weight_bits_baseline - variant.weight_bits_variant;
    point.kld_per_bit =
        point.bits_saved > 0 ? kld(variant) / point.bits_saved : std::numeric_limits<double>::quiet_NaN();
    point.pareto =
        std::isfinite(kld(variant)) &&
        std::none_of(run.variants.begin(), run.variants.end(), [&](const VariantResult& other) {
          const bool as_good = kld(other) <= kld(variant) && other.weight_bits_variant <= variant.weight_bits_variant;
          const bool better = kld(other) < kld(variant) || other.weight_bits_variant < variant.weight_bits_variant;
          return as_good && better;
        });
  }
}

}  // namespace mxlm
