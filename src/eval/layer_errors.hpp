#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "eval/tree.hpp"

namespace mxlm {

/// Squared sums of every hidden state and of its difference from the baseline's, step by step, while they are all
/// there. Rows are added in window order, so no digit depends on micro-batches or threads; a round counts only once it
/// is committed.
class LayerErrors {
 public:
  /// Both are borrowed.
  LayerErrors(Backend& backend, const VariantTree& tree);

  /// `hidden[node][micro-batch]` are the states after `step`.
  void add_step(size_t step, const std::vector<std::vector<Tensor>>& hidden);
  void commit_round();
  /// Forgets what was added since the last commit.
  void drop_round();

  /// Committed sums of a variant, one a step: against themselves (difference 0) where it shares the baseline's states.
  [[nodiscard]] std::vector<ErrorSums> of_variant(size_t variant) const;

 private:
  using Sums = std::vector<std::vector<ErrorSums>>;  // [step][node]
  Backend& backend_;
  const VariantTree& tree_;
  Sums round_, total_;
  std::vector<ErrorSums> rows_;
};

}  // namespace mxlm
