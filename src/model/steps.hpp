#pragma once

// The steps of a model's forward pass. They follow from the ModelSpec alone, so that plans and trees need no device.

#include <cstddef>
#include <span>
#include <vector>

#include "model/spec.hpp"

namespace mxlm {

/// One step: attention or MLP of a layer, or both in a parallel block. It reads the hidden state and writes the next.
struct Step {
  size_t layer = 0;
  bool attention = false, mlp = false;
  /// In the order of ModelSpec::linears(). The Linears of experts come last, expert by expert.
  std::vector<const LinearSpec*> linears;
  size_t first_linear = 0;  // the index of `linears[0]` in ModelSpec::linears()
  size_t prepared =
      0;  // the number of `linears` that are prepared before the step runs; experts are prepared while it runs
  size_t linears_an_expert = 0;  // 0 for a step without experts

  /// "attention", "mlp", or "block" for a step that does both.
  [[nodiscard]] const char* part() const { return attention && mlp ? "block" : attention ? "attention" : "mlp"; }
};

/// All steps in order. They borrow the Linears of `model`.
std::vector<Step> steps_of(const ModelSpec& model);

}  // namespace mxlm
