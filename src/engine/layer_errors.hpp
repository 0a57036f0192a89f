#pragma once

// The errors of hidden states after each step, compared with the baseline's.

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "engine/tree.hpp"
#include "model/forward.hpp"

namespace mxlm {

/// Sums of squares of every hidden state and of its difference from the baseline's, step by step. The sums of a window
/// add its rows in order, so no digit depends on micro-batches, shards, threads or devices.
class LayerErrors {
 public:
  /// Sums of one step of a shard: [node][window of the shard]. Empty where all variants still share the baseline's
  /// node.
  using StepSums = std::vector<std::vector<ErrorSums>>;
  /// `hidden[node][micro-batch]` are the hidden states after the step.
  static StepSums of_step(Backend& backend, const std::vector<TreeNode>& level,
                          const std::vector<std::vector<Tensor>>& hidden, std::span<const MicroBatch> batches);
  /// The sums of one variant and one window, by step, taken from `round`, the sums of the window's shard by step. Zeros
  /// where the variant shares the baseline's hidden state.
  static std::vector<ErrorSums> of_window(const VariantTree& tree, const std::vector<StepSums>& round, size_t variant,
                                          size_t window);
};

}  // namespace mxlm
