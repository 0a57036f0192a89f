#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "engine/tree.hpp"
#include "model/forward.hpp"

namespace mxlm {

/// Squared sums of every hidden state and of its difference from the baseline's, step by step. A window's sums are its
/// rows' in order, so no digit depends on micro-batches, rounds, threads or devices.
class LayerErrors {
 public:
  /// Sums of one step of a round: [node][window of the round]; empty where nobody has left the baseline.
  using StepSums = std::vector<std::vector<ErrorSums>>;
  /// `hidden[node][micro-batch]` are the states after `step`.
  static StepSums of_step(Backend& backend, const std::vector<TreeNode>& level,
                          const std::vector<std::vector<Tensor>>& hidden, std::span<const MicroBatch> batches);
  /// Sums of a variant and a window of the round of which `round` are the sums, one a step; zeros where the variant
  /// shares the baseline's states.
  static std::vector<ErrorSums> of_window(const VariantTree& tree, const std::vector<StepSums>& round, size_t variant,
                                          size_t window);
};

}  // namespace mxlm
