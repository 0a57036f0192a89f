#pragma once

// A study of the first windows of a run: what quantising does to the operands and the product of every Linear, and how
// the exponents of weights and activations are distributed. It is separate from the engine, so that runs without a
// study pay nothing.

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "engine/quantization_error.hpp"
#include "protocols/protocol.hpp"
#include "variants/resolve.hpp"

namespace mxlm {

struct LinearStudyOptions {
  bool errors = false, exponents = false;
  int threads = 0;  // 0 = all
};

struct LinearStudy {
  int64_t windows = 0, tokens = 0;               // that the study has used
  std::vector<std::vector<LinearError>> errors;  // [variant], in forward order
  std::vector<LinearExponents> exponents;        // in forward order
};

/// Runs all variants (variants[0] is the baseline) over the first windows, up to about 4096 tokens. Throws Interrupted.
LinearStudy study_linears(const ModelSpec& model, Backend& backend, DType compute,
                          std::span<const ResolvedVariant> variants, std::span<const Window> windows,
                          const LinearStudyOptions& options);

}  // namespace mxlm
