#pragma once

// The pictures of a run, as <figure>s with inline SVG; "" where the file lacks what they show.

#include <string>

#include "report/figures.hpp"
#include "report/record.hpp"

namespace mxlm::report {

/// KL divergence, and perplexity, against the size of the weights, with error bars. Points carry the variant's number
/// in the table, or its name where there are few.
std::string tradeoff_plots(const Run& run);

/// Error of the hidden state after each step: variants x steps, with a table of the same figures.
std::string layer_heat_map(const Run& run);

/// Exponents of weights and activations, a plot a role and a table of the tensors.
std::string exponent_histograms(const Run& run);

/// Baseline perplexity a subset, and what the first variants change; a table has all of them.
std::string subset_bars(const Run& run);

}  // namespace mxlm::report
