#pragma once

// The parts of a run's section on the page, beside the pictures of plots.hpp; "" if there is nothing to say.

#include <string>

#include "report/figures.hpp"
#include "report/record.hpp"

namespace mxlm::report {

/// In words: what changed, by how much, and whether the change is more than chance.
std::string summary(const Run& run);

/// One row per variant: the figures that readers look at first.
std::string variant_table(const Run& run);

/// The distribution of the divergence over tokens, and the changes of probabilities.
std::string distribution_table(const Run& run);

/// Comparisons of variants with each other.
std::string pair_table(const Run& run);

/// The Linears with the largest errors.
std::string linear_errors(const Run& run);

/// Time and memory.
std::string cost_table(const Run& run);

/// The products that each variant replaces; tensors that differ only in the layer's number share a line.
std::string replaced_list(const Run& run);

/// Model, data, protocol, machine, command and hashes.
std::string provenance(const Run& run, const File& file);

}  // namespace mxlm::report
