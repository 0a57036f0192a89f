#pragma once

// A second look at the first windows of a run: what quantising does to the operands and the product of every Linear,
// and how weights and activations lie. Apart from the engine, so that runs without it pay nothing.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/protocol.hpp"
#include "eval/quantization_error.hpp"
#include "eval/tree.hpp"

namespace mxlm {

/// Errors of a replaced Linear under one variant.
struct LinearError {
  std::string tensor, role;
  std::optional<QuantizationError> weight, activation;  // of the sides that are quantised
  /// Of its product against the one of the same (the variant's own) input with neither side quantised, both in float32
  /// before the bias.
  ErrorSums output;
};

/// How the values of a Linear of the baseline lie.
struct LinearExponents {
  std::string tensor, role;
  ExponentHistogram weight;
  std::optional<ExponentHistogram> activation;  // none where no token reached it (an expert)
};

struct LinearStudyOptions {
  bool errors = false, exponents = false;
  int threads = 0;  // 0 = all
};

struct LinearStudy {
  int64_t windows = 0, tokens = 0;               // looked at
  std::vector<std::vector<LinearError>> errors;  // [variant], in forward order
  std::vector<LinearExponents> exponents;        // in forward order
};

/// Runs all variants (variants[0] is the baseline) over the first windows, up to about 4096 tokens. Throws Interrupted.
LinearStudy study_linears(const ModelSpec& model, Backend& backend, DType compute, std::span<const Variant> variants,
                          std::span<const Window> windows, const LinearStudyOptions& options);

}  // namespace mxlm
