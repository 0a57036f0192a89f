#pragma once

// What the tables of eval and sweep say below their figures: errors, verdicts, rounding, and how much text a verdict
// takes.

#include <string>

#include "run/results.hpp"

namespace mxlm {

/// What ± means, the number of clusters behind it, and a warning if there are few.
std::string error_words(const ClusterCount& clusters);

/// "42 windows", "1 document", "12 groups of windows".
std::string clusters_text(const ClusterCount& clusters);

/// How large the changes are, and which changes of perplexity are significant; "" without variants.
std::string verdict_words(const RunResult& run);

/// With --noise: what noise is, which figures are only rounding, and whether float32 would show more; else "".
std::string noise_words(const RunResult& run);

/// How many tokens show a change of 1 % of perplexity; "" if unknown.
std::string power_words(const RunResult& run);

/// The same before a run, as a line of a plan: `tokens` will be scored; for comparison, the tokens that booklet-7m
/// needed on three texts (docs/numerics.md).
std::string power_forecast(int64_t tokens);

}  // namespace mxlm
