#include "run/ranking.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <vector>

namespace mxlm {
namespace {

using testing::ElementsAre;

/// The definition, one variant after the other.
std::optional<size_t> rival_of(const std::vector<VariantResult>& variants, size_t v) {
  const auto kld = [&](size_t i) { return variants[i].figures.vs_baseline->kld_mean; };
  std::optional<size_t> best;
  for (size_t i = 1; i < variants.size(); ++i) {
    const bool smaller = variants[i].weight_bits_variant <= variants[v].weight_bits_variant;
    if (i != v && smaller && (!best || kld(i) < kld(*best))) best = i;
  }
  return best && kld(*best) < kld(v) ? best : std::nullopt;
}

TEST(Ranking, RivalsAreTheLeastDivergentOfNoMoreBits) {
  std::minstd_rand random(7);
  for (size_t count = 1; count < 40; ++count) {
    std::vector<VariantResult> variants(count);
    for (VariantResult& variant : variants) {
      // Few values, so that there are ties of both.
      variant.weight_bits_variant = static_cast<double>(random() % 6);
      variant.figures.vs_baseline = VsBaseline{};
      variant.figures.vs_baseline->kld_mean = static_cast<double>(random() % 8);
    }
    const auto found = rivals(variants);
    ASSERT_EQ(found.size(), count);
    EXPECT_FALSE(found[0]);
    for (size_t v = 1; v < count; ++v) EXPECT_EQ(found[v], rival_of(variants, v)) << v << " of " << count;
  }
}

TEST(Points, AreRatedByKlAndBits) {
  RunResult run;
  const auto add = [&](double kld, double bits, bool swept = true) {
    VariantResult v;
    v.figures.vs_baseline.emplace();
    v.figures.vs_baseline->kld_mean = kld;
    v.weight_bits_baseline = 16;
    v.weight_bits_variant = bits;
    if (swept) v.sweep.emplace();
    run.variants.push_back(v);
  };
  add(0, 16, false);
  run.variants[0].figures.vs_baseline.reset();
  add(0.1, 8);                                       // best at 8 bits
  add(0.2, 8);                                       // worse than the one before
  add(0.4, 4);                                       // the fewest bits
  add(0.4, 4);                                       // as good
  add(0.01, 16);                                     // activations only: the baseline has no KL at as many bits
  add(std::numeric_limits<double>::quiet_NaN(), 2);  // no figures
  rate_points(run);
  const auto& v = run.variants;
  EXPECT_FALSE(v[0].sweep);
  EXPECT_DOUBLE_EQ(v[1].sweep->bits_saved, 8);
  EXPECT_DOUBLE_EQ(v[1].sweep->kld_per_bit, 0.1 / 8);
  EXPECT_DOUBLE_EQ(v[3].sweep->kld_per_bit, 0.4 / 12);
  EXPECT_TRUE(std::isnan(v[5].sweep->kld_per_bit));
  std::vector<bool> pareto;
  for (size_t i = 1; i < v.size(); ++i) pareto.push_back(v[i].sweep->pareto);
  EXPECT_THAT(pareto, ElementsAre(true, false, true, true, false, false));
}

}  // namespace
}  // namespace mxlm
