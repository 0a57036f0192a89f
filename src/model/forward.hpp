#pragma once

// The one forward pass. A model runs as a sequence of steps (two a layer: attention, MLP), each of which reads the
// hidden state and writes the next; variants fork between steps. Before a step its Linears are prepared in the specs
// that some variant wants; the step itself only asks the backend for operands and products.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"

namespace mxlm {

/// A micro-batch on the device: packed windows and the rotary tables of their lengths. Stays the same for all steps.
struct MicroBatch {
  Batch batch;
  Tensor cos, sin;                   // [table rows, rotary_dim / 2], model dtype
  std::vector<int32_t> rotary_rows;  // table row of each token
  [[nodiscard]] Rotary rotary() const { return {&cos, &sin, rotary_rows}; }
};

/// One Linear of a step as one variant wants it.
struct StepLinear {
  std::shared_ptr<const PreparedWeight> weight;
  OperandSpec activations;
};

/// All of a step as one variant wants it: `linears` in the order of ForwardPass::step_linears.
struct StepWeights {
  std::vector<StepLinear> linears;
  ProductSpec qk, pv;  // attention steps only
};

class ForwardPass {
 public:
  /// `compute` is the model dtype of the run: f32 or bf16. Uploads norms and biases; `spec` must outlive the pass.
  ForwardPass(const ModelSpec& spec, Backend& backend, DType compute);
  ~ForwardPass();
  ForwardPass(const ForwardPass&) = delete;
  ForwardPass& operator=(const ForwardPass&) = delete;

  [[nodiscard]] int64_t steps() const;
  [[nodiscard]] std::vector<const LinearSpec*> step_linears(int64_t step) const;
  /// True if the step computes attention products (qk, pv).
  [[nodiscard]] bool has_attention(int64_t step) const;
  [[nodiscard]] DType dtype() const { return compute_; }

  /// Packs windows into a micro-batch. Throws Error naming a token id outside the vocabulary.
  [[nodiscard]] MicroBatch make_batch(std::span<const std::span<const int32_t>> windows) const;
  /// The hidden state [rows, hidden] before the first step.
  [[nodiscard]] Tensor embed(const MicroBatch& batch) const;
  /// One step; `out` may be `in` itself.
  void run(int64_t step, const StepWeights& weights, const MicroBatch& batch, const Tensor& in, Tensor& out) const;
  /// The final norm of selected rows, as the operand that `head` reads.
  [[nodiscard]] Operand head_operand(const Tensor& hidden, std::span<const int32_t> rows, const StepLinear& head) const;
  [[nodiscard]] const Tensor* head_bias() const;

 private:
  struct Constants;
  void run_attention(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch, const Tensor& in,
                     Tensor& out, size_t index) const;
  void run_mlp(const StepWeights& weights, const MicroBatch& batch, const Tensor& in, Tensor& out, size_t index) const;

  const ModelSpec& spec_;
  Backend& backend_;
  DType compute_;
  std::unique_ptr<Constants> constants_;
};

}  // namespace mxlm
