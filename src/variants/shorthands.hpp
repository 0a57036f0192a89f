#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "variants/variant.hpp"

namespace mxlm {

/// The variant that `eval` runs when none is asked for.
Variant default_variant();

/// "--tier A|B|C|D|all": the fixed policies of the Python prototype. Throws UsageError.
std::vector<Variant> tier_variants(std::string_view tier);

/// A, B, C, D, all.
const std::vector<std::string>& tier_names();

/// The stages of the Python prototype that compare MX with other formats.
enum class PipelineStage : uint8_t { bf16, bfp16, int8, fp8_emulation, fp8_backend };

/// The variants of a stage, named after it, with all targets in its format. The emulation has two: what the prototype
/// ran (each element its own exponent) and what it took it for (a plain cast).
std::vector<Variant> stage_variants(PipelineStage stage, const std::vector<std::string>& targets);

/// One variant for each format: the targets ("mlp", "attention", "linear") all in it.
std::vector<Variant> uniform_variants(const std::vector<std::string>& targets, const std::vector<std::string>& formats);

}  // namespace mxlm
