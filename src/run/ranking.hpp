#pragma once

// The order of a sweep's table, which of its rows have to be compared with one another, and which points are best.

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "run/results.hpp"

namespace mxlm {

/// Variants (1 and up) by mean KL divergence a bit of weight saved, least first; what saves none or is not finite last,
/// by KL divergence.
std::vector<size_t> ranking(std::span<const VariantResult> variants);

/// For each variant the one of the others (1 and up) whose weights take at most as many bits and that has the least KL
/// divergence, the first of equals; none if that is not below its own, nor for the baseline.
std::vector<std::optional<size_t>> rivals(std::span<const VariantResult> variants);

/// Pairs (a < b) that a table of many variants needs: each with the one before it in the ranking, with the first, and
/// with its rival. In order, each once.
std::vector<std::pair<size_t, size_t>> neighbours(std::span<const VariantResult> variants);

/// Fills bits_saved, kld_per_bit and pareto of the points of variants[1...], from the run's figures. A point is
/// Pareto-optimal if no other variant, nor the baseline, is at least as good in both mean KL divergence and bits a
/// weight, and better in one.
void rate_points(RunResult& run);

}  // namespace mxlm
