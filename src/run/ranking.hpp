#pragma once

// The order of a sweep's table, the pairs of rows that need a comparison, and the Pareto-optimal points.

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "run/results.hpp"

namespace mxlm {

/// The indices of the variants, without the baseline, by mean KL divergence per bit of weight saved, smallest first.
/// Variants that save no bits or have no finite divergence come last, by KL divergence.
std::vector<size_t> ranking(std::span<const VariantResult> variants);

/// The rival of each variant: among the other variants whose weights take at most as many bits, the variant with the
/// smallest KL divergence (the first if several are equal). A variant has no rival if no divergence is below its own.
/// The baseline has no rival and is no rival.
std::vector<std::optional<size_t>> rivals(std::span<const VariantResult> variants);

/// The pairs (a < b) that a table of many variants compares: each variant with the variant before it in the ranking,
/// with the first variant of the ranking, and with its rival. The pairs are sorted and unique.
std::vector<std::pair<size_t, size_t>> neighbours(std::span<const VariantResult> variants);

/// Fills in bits_saved, kld_per_bit and pareto of the sweep points, from the run's figures. A point is Pareto-optimal
/// if no other variant and not the baseline is at least as good in mean KL divergence and in bits per weight, and
/// better in one of the two.
void rate_points(RunResult& run);

}  // namespace mxlm
