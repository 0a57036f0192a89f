#pragma once

// What the order of float32 sums does to figures, from a second run in another order.

#include <limits>
#include <span>
#include <vector>

#include "statistics/statistics.hpp"

namespace mxlm {

/// Of one variant. NaN where a figure is not defined.
struct NoiseFigures {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  /// Standard deviation of a figure over orders of sums: the deviation of its tokens' differences between the two runs,
  /// over sqrt(2 N), for both runs have an order of their own. KL and top-1 are unknown for the baseline.
  double nll_sd = kUnknown, ln_ppl_ratio_sd = kUnknown, kld_sd = kUnknown, top1_sd = kUnknown;
  /// The baseline against itself in the other order: mean KL divergence, and the share of tokens with another most
  /// likely token. What KL divergence or disagreement a variant has below these is rounding.
  double floor_kld = kUnknown, floor_flips = kUnknown;
};

/// [variant], without the floors' KL divergence; `reversed` holds the scores of the same windows in the other order.
std::vector<NoiseFigures> measure_noise(std::span<const std::vector<WindowScores>> scores,
                                        std::span<const std::vector<WindowScores>> reversed, const Sample& sample);

}  // namespace mxlm
