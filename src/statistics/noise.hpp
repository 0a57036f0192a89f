#pragma once

// Noise: what the order of float32 sums changes in figures, measured with a second run in another order.

#include <limits>
#include <span>
#include <vector>

#include "statistics/statistics.hpp"

namespace mxlm {

/// The noise of one variant. NaN where a figure is not defined.
struct NoiseFigures {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  /// The standard deviation of a figure over orders of summation. It is the standard deviation of the differences of
  /// the N tokens between the two runs, divided by sqrt(2 N): the 2 is there because both runs have an order of their
  /// own. kld_sd and top1_sd are unknown for the baseline.
  double nll_sd = kUnknown, ln_ppl_ratio_sd = kUnknown, kld_sd = kUnknown, top1_sd = kUnknown;
  /// The floor: the mean KL divergence of the baseline from itself in the other order, and the share of tokens whose
  /// most likely token changes. A variant's KL divergence or disagreement below the floor is only rounding.
  double floor_kld = kUnknown, floor_flips = kUnknown;
};

/// The noise by variant, without floor_kld, which needs the model. `reversed` holds the scores of the same windows in
/// the other order.
std::vector<NoiseFigures> measure_noise(std::span<const std::vector<WindowScores>> scores,
                                        std::span<const std::vector<WindowScores>> reversed, const Sample& sample);

}  // namespace mxlm
