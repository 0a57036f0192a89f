#pragma once

// The parts of a run's section on the page, beside the pictures of plots.hpp; "" where there is nothing to say.

#include <string>

#include "report/figures.hpp"
#include "report/record.hpp"

namespace mxlm::report {

/// In words: what changed, by how much, and whether that is more than chance.
std::string summary(const Run& run);

/// One row a variant: the figures that one reads first.
std::string variant_table(const Run& run);

/// How the divergence is distributed over tokens, and how probabilities moved.
std::string distribution_table(const Run& run);

/// Comparisons of variants with one another.
std::string pair_table(const Run& run);

/// The Linears with the largest errors.
std::string linear_errors(const Run& run);

/// Time and memory.
std::string cost_table(const Run& run);

/// Which products each variant replaces, tensors that differ in their layer's number on one line.
std::string replaced_list(const Run& run);

/// Model, data, protocol, machine, command and hashes.
std::string provenance(const Run& run, const File& file);

}  // namespace mxlm::report
