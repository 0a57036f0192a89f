#pragma once

// The pictures of a run, as <figure>s with inline SVG; "" if the file lacks their data.

#include <string>

#include "report/figures.hpp"
#include "report/record.hpp"

namespace mxlm::report {

/// KL divergence, and perplexity, against the size of the weights, with error bars. Points carry the variant's number
/// in the table, or its name if there are few variants.
std::string tradeoff_plots(const Run& run);

/// The error of the hidden state after each step: variants x steps, with a table of the same figures.
std::string layer_heat_map(const Run& run);

/// The exponents of weights and activations: a plot for each role and a table of the tensors.
std::string exponent_histograms(const Run& run);

/// The baseline's perplexity by subset, and the changes of the first variants; a table has all variants.
std::string subset_bars(const Run& run);

}  // namespace mxlm::report
