#pragma once

// Variants that options name by one word.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "variants/variant.hpp"

namespace mxlm {

/// The variant that `eval` runs when the user gives no variant.
Variant default_variant();

/// The variants of "--tier A|B|C|D|all", which are fixed policies of the Python prototype. Throws UsageError for other
/// words.
std::vector<Variant> tier_variants(std::string_view tier);

/// The words of --tier: A, B, C, D, all.
const std::vector<std::string>& tier_names();

/// Stages (test modes) of the Python prototype that compare Microscaling with other formats.
enum class PipelineStage : uint8_t { bf16, bfp16, int8, fp8_emulation, fp8_backend };

/// The variants of a stage, which bear its name and put all targets in its format. The stage fp8_emulation has two
/// variants: what the prototype really computed (an exponent for each element) and what it meant to compute (a cast).
std::vector<Variant> stage_variants(PipelineStage stage, const std::vector<std::string>& targets);

/// One variant for each format, with all targets ("mlp", "attention", "linear") in that format.
std::vector<Variant> uniform_variants(const std::vector<std::string>& targets, const std::vector<std::string>& formats);

}  // namespace mxlm
