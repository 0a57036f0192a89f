#pragma once

// The only loop over a model: steps, nodes of the tree, micro-batches. Scoring, the study of Linears and writing logits
// use this loop with visitors, which decide where weights come from, what is timed and what is observed.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/tree.hpp"
#include "engine/weight_store.hpp"
#include "model/forward.hpp"

namespace mxlm {

/// The micro-batches of a walk and their hidden states.
struct WalkState {
  std::vector<MicroBatch> batches;
  /// [node of the step before][micro-batch]; before the first step, [0] holds the embeddings.
  std::vector<std::vector<Tensor>> hidden{1};

  /// Adds a micro-batch of these windows of token ids and embeds it. For `keys`, see Batch::keys.
  void add(const ForwardPass& forward, std::span<const std::span<const int32_t>> windows,
           std::vector<int32_t> keys = {});
};

/// A step as visitors see it: its index, what it computes, and the nodes that run it.
struct WalkStep {
  size_t index;
  const Step& step;
  const std::vector<TreeNode>& nodes;
};

/// What a walk calls, in this order: begin_step; then for each node begin_node, weight (for each Linear that is
/// prepared before the step runs), begin_run, then on_rows and weight (for experts) while the node runs, and end_node;
/// at last end_step.
class WalkVisitor {
 public:
  WalkVisitor() = default;
  WalkVisitor(const WalkVisitor&) = delete;
  WalkVisitor& operator=(const WalkVisitor&) = delete;
  virtual ~WalkVisitor() = default;

  /// The weight of step.linears[linear], prepared for the node's product spec.
  virtual std::shared_ptr<const PreparedWeight> weight(const WalkStep& at, const TreeNode& node, size_t linear) = 0;
  virtual void begin_step(const WalkStep& /*at*/) {}
  virtual void begin_node(const WalkStep& /*at*/, const TreeNode& /*node*/) {}
  virtual void begin_run(const TreeNode& /*node*/) {}
  virtual void on_rows(int64_t /*finished*/) {}
  virtual void end_node(const WalkStep& /*at*/, const TreeNode& /*node*/) {}
  /// `state.hidden` holds the hidden states of this step's nodes.
  virtual void end_step(const WalkStep& /*at*/, const WalkState& /*state*/) {}
};

/// Runs all steps of `forward` for the nodes of `tree`. Afterwards `state.hidden` holds those of the last step's nodes.
/// Throws Interrupted between pieces of work.
void walk(const ForwardPass& forward, Backend& backend, const VariantTree& tree, WalkState& state,
          WalkVisitor& visitor);

/// Prepares each weight when the walk asks for it, and keeps no weight.
class StreamingVisitor : public WalkVisitor {
 public:
  StreamingVisitor(Backend& backend, DType compute) : store_(backend, compute, KeptForm::nothing) {}
  std::shared_ptr<const PreparedWeight> weight(const WalkStep& at, const TreeNode& node, size_t linear) override;
  void end_step(const WalkStep& at, const WalkState& state) override;
  /// The LM head, prepared for a product spec. The caller releases the pages of its file.
  StepLinear head(const ModelSpec& model, const ProductSpec& product);

 private:
  WeightStore store_;
};

}  // namespace mxlm
