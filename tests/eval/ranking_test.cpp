#include "eval/ranking.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

namespace mxlm {
namespace {

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

}  // namespace
}  // namespace mxlm
