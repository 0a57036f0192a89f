#pragma once

// The tree of variants. Variants whose product specs agree up to a step share the hidden state after that step, so the
// shared steps are computed once. A node is a hidden state after one step of the forward pass; the baseline is a leaf.

#include <cstddef>
#include <span>
#include <vector>

#include "model/steps.hpp"
#include "variants/resolve.hpp"

namespace mxlm {

/// The specs of all products of one step, in the order of Step::linears.
struct StepProducts {
  std::vector<ProductSpec> linears;
  ProductSpec qk, pv;
  friend bool operator==(const StepProducts&, const StepProducts&) = default;
};

struct TreeNode {
  size_t parent = 0;  // index of a node of the step before; for step 0, 0 is the embedding
  StepProducts products;
  std::vector<size_t> variants;  // variants that share this node
};

struct VariantTree {
  std::vector<std::vector<TreeNode>> levels;  // [step][node]
  std::vector<size_t> leaf;                   // [variant] -> node of the last level; 0 if the model has no steps
  std::vector<ProductSpec> lm_head;           // [variant]
  /// The largest number of hidden states that are in memory at once.
  [[nodiscard]] size_t width() const;
  [[nodiscard]] size_t nodes() const;
  /// The work of all variants, in forward passes of one variant. All steps count the same, and the LM head does not
  /// count.
  [[nodiscard]] double forwards() const;
};

/// Builds the tree. variants[0] is the baseline, whose node is the first of each level.
VariantTree build_tree(const ModelSpec& model, std::span<const ResolvedVariant> variants);

}  // namespace mxlm
