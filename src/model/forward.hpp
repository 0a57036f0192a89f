#pragma once

// The forward pass of all models. A model runs as a sequence of steps: two for each layer (attention, MLP), or one for
// a parallel block. A step reads the hidden state and writes the next one, and variants fork between steps. The Linears
// of a step are prepared before the step runs, in all specs that variants need; experts are prepared one at a time
// while it runs. The step itself only asks the backend for operands and products.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "model/steps.hpp"

namespace mxlm {

/// The sines and cosines of one RopeSpec, for windows of several lengths.
struct RotaryTable {
  Tensor cos, sin;  // [table rows, rotary_dim / 2]
  /// RopeSpec::length_key -> the first row and the number of rows.
  std::map<int64_t, std::pair<int64_t, int64_t>> parts;
};

/// The rotary table of a micro-batch, and the rows that its tokens use.
struct RotaryTables {
  std::shared_ptr<const RotaryTable> table;
  std::vector<int32_t> rows;  // table row of each token
  bool interleaved = false;
  [[nodiscard]] Rotary view() const { return {&table->cos, &table->sin, rows, interleaved}; }
};

/// A micro-batch on the device: packed windows and the rotary tables for their lengths. It is the same for all steps.
struct MicroBatch {
  Batch batch;
  std::vector<RotaryTables> ropes;  // in the order of ModelSpec::ropes
};

/// One Linear of a step under one variant.
struct StepLinear {
  std::shared_ptr<const PreparedWeight> weight;
  ProductSpec product;  // the arithmetic is the same for all products of a step
};

/// All products of a step under one variant. `linears` has the order of Step::linears. The weights of experts are null,
/// because the step asks for them through its Fetch.
struct StepWeights {
  std::vector<StepLinear> linears;
  ProductSpec qk, pv;  // steps with attention only
  [[nodiscard]] Arithmetic arithmetic() const { return linears.front().product.arithmetic; }
};

/// The forward pass of one model on one backend.
class ForwardPass {
 public:
  /// Prepares the weight of a Linear of the step (an index into Step::linears) in the variant's spec.
  using Fetch = std::function<std::shared_ptr<const PreparedWeight>(size_t linear)>;
  /// Called after each piece of a step with the number of rows that the piece has finished. May throw to stop the step.
  using OnRows = std::function<void(int64_t rows)>;

  /// `compute` is the model dtype of the run: f32 or bf16. Uploads norms and biases; `spec` must outlive the pass.
  ForwardPass(const ModelSpec& spec, Backend& backend, DType compute);
  ~ForwardPass();
  ForwardPass(const ForwardPass&) = delete;
  ForwardPass& operator=(const ForwardPass&) = delete;

  /// The steps of the model, from steps_of().
  [[nodiscard]] const std::vector<Step>& steps() const { return steps_; }
  [[nodiscard]] DType dtype() const { return compute_; }

  /// Packs windows into a micro-batch. Throws Error naming a token id outside the vocabulary, or a window that is
  /// longer than the model's table of positions.
  [[nodiscard]] MicroBatch make_batch(std::span<const std::span<const int32_t>> windows) const;
  /// The hidden state [rows, hidden] before the first step.
  [[nodiscard]] Tensor embed(const MicroBatch& batch) const;
  /// Runs one step over micro-batches, from in[b] to out[b], which may be the same tensor.
  void run(const Step& step, const StepWeights& weights, const Fetch& fetch, std::span<const MicroBatch> batches,
           std::span<const Tensor* const> in, std::span<Tensor* const> out, const OnRows& on_rows) const;
  /// The final norm of selected rows, as the operand that the LM head `head` reads. `window_offsets` are the offsets of
  /// the windows in `rows`.
  [[nodiscard]] Operand head_operand(const Tensor& hidden, std::span<const int32_t> rows,
                                     std::span<const int64_t> window_offsets, const StepLinear& head) const;
  /// The job of the LM head on that operand, without the places for scores. Borrows both arguments.
  [[nodiscard]] HeadJob head_job(const Operand& operand, const StepLinear& head) const;

 private:
  struct Constants;
  struct Piece;
  void run_attention(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch, const Tensor& in,
                     Tensor& out) const;
  void run_mlp(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch, const Tensor& in,
               Tensor& out) const;
  void run_parallel(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch, const Tensor& in,
                    Tensor& out) const;
  void run_mixture(const LayerSpec& layer, const StepWeights& weights, const Fetch& fetch,
                   std::span<const MicroBatch> batches, std::span<const Tensor* const> in, std::span<Tensor* const> out,
                   const OnRows& on_rows) const;

  const ModelSpec& spec_;
  Backend& backend_;
  DType compute_;
  std::vector<Step> steps_;
  std::unique_ptr<Constants> constants_;
};

}  // namespace mxlm
