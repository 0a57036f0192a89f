#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/variant.hpp"

namespace mxlm {

/// The variant that `eval` runs when none is asked for.
Variant default_variant();

/// "--tier A|B|C|D|all": the fixed policies of the Python prototype. Throws UsageError.
std::vector<Variant> tier_variants(std::string_view tier);

/// One variant for each format: the targets ("mlp", "attention", "linear") all in it.
std::vector<Variant> uniform_variants(const std::vector<std::string>& targets, const std::vector<std::string>& formats);

}  // namespace mxlm
