#include "engine/walk.hpp"

#include <utility>

#include "base/interrupt.hpp"

namespace mxlm {

void WalkState::add(const ForwardPass& forward, std::span<const std::span<const int32_t>> windows,
                    std::vector<int32_t> keys) {
  MicroBatch& batch = batches.emplace_back(forward.make_batch(windows));
  batch.batch.keys = std::move(keys);
  hidden.front().push_back(forward.embed(batch));
}

void walk(const ForwardPass& forward, Backend& backend, const VariantTree& tree, WalkState& state,
          WalkVisitor& visitor) {
  for (size_t s = 0; s < forward.steps().size(); ++s) {
    const Step& step = forward.steps()[s];
    const auto& nodes = tree.levels[s];
    const WalkStep at{.index = s, .step = step, .nodes = nodes};
    visitor.begin_step(at);
    // The last child of a parent overwrites the parent's hidden state, which nobody else needs.
    std::vector<size_t> children(state.hidden.size(), 0);
    for (const TreeNode& node : nodes) ++children[node.parent];
    std::vector<std::vector<Tensor>> next(nodes.size());
    for (size_t n = 0; n < nodes.size(); ++n) {
      const TreeNode& node = nodes[n];
      visitor.begin_node(at, node);
      StepWeights weights{.linears = {}, .qk = node.products.qk, .pv = node.products.pv};
      weights.linears.reserve(step.linears.size());
      for (size_t l = 0; l < step.linears.size(); ++l) {
        throw_if_interrupted();
        weights.linears.push_back(
            {.weight = l < step.prepared ? visitor.weight(at, node, l) : nullptr, .product = node.products.linears[l]});
      }
      visitor.begin_run(node);
      auto& parent = state.hidden[node.parent];
      const bool last = --children[node.parent] == 0;
      std::vector<const Tensor*> in;
      std::vector<Tensor*> out;
      next[n].reserve(parent.size());
      for (Tensor& tensor : parent) {
        in.push_back(&tensor);
        out.push_back(last ? &tensor
                           : &next[n].emplace_back(backend.empty(forward.dtype(), tensor.rows(), tensor.cols())));
      }
      forward.run(
          step, weights, [&](size_t l) { return visitor.weight(at, node, l); }, state.batches, in, out,
          [&](int64_t rows) {
            throw_if_interrupted();
            visitor.on_rows(rows);
          });
      if (last) next[n] = std::move(parent);
      visitor.end_node(at, node);
    }
    state.hidden = std::move(next);
    visitor.end_step(at, state);
  }
}

std::shared_ptr<const PreparedWeight> StreamingVisitor::weight(const WalkStep& at, const TreeNode& node,
                                                               size_t linear) {
  return store_.get(*at.step.linears[linear], node.products.linears[linear]).prepared;
}

void StreamingVisitor::end_step(const WalkStep& at, const WalkState& /*state*/) {
  for (const LinearSpec* linear : at.step.linears) linear->weight.release();
}

StepLinear StreamingVisitor::head(const ModelSpec& model, const ProductSpec& product) {
  return {.weight = store_.get(model.lm_head, product).prepared, .product = product};
}

}  // namespace mxlm
