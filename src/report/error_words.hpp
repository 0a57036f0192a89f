#pragma once

// What the tables of eval and sweep say below their figures about errors, verdicts, rounding and how much text it
// takes.

#include <string>

#include "eval/results.hpp"

namespace mxlm {

/// What ± is, from how many clusters, and a warning where these are few.
std::string error_words(const ClusterCount& clusters);

/// "42 windows", "1 document", "12 groups of windows".
std::string clusters_text(const ClusterCount& clusters);

/// How large the variants' changes are, and which of perplexity are significant; "" without variants.
std::string verdict_words(const RunResult& run);

/// With --noise: what it is, what is no more than rounding, and whether float32 would see more; else "".
std::string noise_words(const RunResult& run);

/// How many tokens it takes to see a change of 1 % of perplexity; "" where that is not known.
std::string power_words(const RunResult& run);

/// A line of a plan, for before a run has measured anything: `tokens` will be scored, and how many booklet-7m took on
/// three texts (docs/numerics.md), as a comparison.
std::string power_forecast(int64_t tokens);

}  // namespace mxlm
