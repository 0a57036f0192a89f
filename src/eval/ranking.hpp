#pragma once

// The order of a sweep's table, and which of its rows have to be compared with one another.

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "eval/results.hpp"

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

}  // namespace mxlm
