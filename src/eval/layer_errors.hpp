#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "eval/tree.hpp"

namespace mxlm {

/// Squared sums of every hidden state and of its difference from the baseline's, step by step. A window's sums are its
/// rows' in order, and windows are added in order, so no digit depends on micro-batches, rounds, threads or devices.
class LayerErrors {
 public:
  explicit LayerErrors(const VariantTree& tree);

  /// Sums of one step of a round: [node][window of the round]; empty where nobody has left the baseline.
  using StepSums = std::vector<std::vector<ErrorSums>>;
  /// `hidden[node][micro-batch]` are the states after `step`.
  static StepSums of_step(Backend& backend, const std::vector<TreeNode>& level,
                          const std::vector<std::vector<Tensor>>& hidden, std::span<const MicroBatch> batches);
  /// Adds the sums of a finished round, [step]. Rounds come in window order.
  void add_round(const std::vector<StepSums>& round);

  /// Sums of a variant, one a step: against themselves (difference 0) where it shares the baseline's states.
  [[nodiscard]] std::vector<ErrorSums> of_variant(size_t variant) const;

 private:
  const VariantTree& tree_;
  std::vector<std::vector<ErrorSums>> total_;  // [step][node]
};

}  // namespace mxlm
