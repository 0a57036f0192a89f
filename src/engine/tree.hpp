#pragma once

// Variants form a tree: those that share a prefix of product specs share the hidden state until they differ, and the
// baseline is one leaf. A node is a hidden state after one step of the forward pass.

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
  size_t parent = 0;  // index among the nodes of the step before (0 = the embedding for step 0)
  StepProducts products;
  std::vector<size_t> variants;  // that pass through this node
};

struct VariantTree {
  std::vector<std::vector<TreeNode>> levels;  // [step][node]
  std::vector<size_t> leaf;                   // [variant] -> node of the last level (0 if there are no steps)
  std::vector<ProductSpec> lm_head;           // [variant]
  /// The most hidden states that are alive at once.
  [[nodiscard]] size_t width() const;
  [[nodiscard]] size_t nodes() const;
  /// The work of all variants, in forward passes of one variant (steps counted alike, without the head).
  [[nodiscard]] double forwards() const;
};

/// variants[0] is the baseline, whose nodes are the first of each level.
VariantTree build_tree(const ModelSpec& model, std::span<const ResolvedVariant> variants);

}  // namespace mxlm
