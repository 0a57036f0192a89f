#pragma once

// The one forward pass. A model runs as a sequence of steps (two a layer: attention, MLP; one for a parallel block),
// each of which reads the hidden state and writes the next; variants fork between steps. Before a step its Linears are
// prepared in the specs that some variant wants, experts one at a time while it runs; the step itself only asks the
// backend for operands and products.

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

/// Sines and cosines of one RopeSpec for windows of some lengths.
struct RotaryTable {
  Tensor cos, sin;  // [table rows, rotary_dim / 2]
  /// By RopeSpec::length_key: the first row, and how many.
  std::map<int64_t, std::pair<int64_t, int64_t>> parts;
};

/// A micro-batch's part in them.
struct RotaryTables {
  std::shared_ptr<const RotaryTable> table;
  std::vector<int32_t> rows;  // table row of each token
  bool interleaved = false;
  [[nodiscard]] Rotary view() const { return {&table->cos, &table->sin, rows, interleaved}; }
};

/// A micro-batch on the device: packed windows and the rotary tables of their lengths. Stays the same for all steps.
struct MicroBatch {
  Batch batch;
  std::vector<RotaryTables> ropes;  // as ModelSpec::ropes
};

/// One Linear as one variant wants it.
struct StepLinear {
  std::shared_ptr<const PreparedWeight> weight;
  ProductSpec product;  // the arithmetic is the same for all products of a step
};

/// All of a step as one variant wants it: `linears` in the order of Step::linears. Weights of experts are null: the
/// step asks for them through its Fetch.
struct StepWeights {
  std::vector<StepLinear> linears;
  ProductSpec qk, pv;  // steps with attention only
  [[nodiscard]] Arithmetic arithmetic() const { return linears.front().product.arithmetic; }
};

class ForwardPass {
 public:
  /// Prepares the weight of a Linear of the step (an index into Step::linears) in the variant's spec.
  using Fetch = std::function<std::shared_ptr<const PreparedWeight>(size_t linear)>;
  /// Told after each piece of a step how many rows it has finished; may throw to stop.
  using OnRows = std::function<void(int64_t rows)>;

  /// `compute` is the model dtype of the run: f32 or bf16. Uploads norms and biases; `spec` must outlive the pass.
  ForwardPass(const ModelSpec& spec, Backend& backend, DType compute);
  ~ForwardPass();
  ForwardPass(const ForwardPass&) = delete;
  ForwardPass& operator=(const ForwardPass&) = delete;

  /// As steps_of() the model.
  [[nodiscard]] const std::vector<Step>& steps() const { return steps_; }
  [[nodiscard]] DType dtype() const { return compute_; }

  /// Packs windows into a micro-batch. Throws Error naming a token id outside the vocabulary, or a window that is
  /// longer than the model's table of positions.
  [[nodiscard]] MicroBatch make_batch(std::span<const std::span<const int32_t>> window_offsets) const;
  /// The hidden state [rows, hidden] before the first step.
  [[nodiscard]] Tensor embed(const MicroBatch& batch) const;
  /// One step over micro-batches: in[b] to out[b], which may be the same tensor.
  void run(const Step& step, const StepWeights& weights, const Fetch& fetch, std::span<const MicroBatch> batches,
           std::span<const Tensor* const> in, std::span<Tensor* const> out, const OnRows& on_rows) const;
  /// The final norm of selected rows, as the operand that `head` reads. `window_offsets`: offsets of the windows in
  /// `rows`.
  [[nodiscard]] Operand head_operand(const Tensor& hidden, std::span<const int32_t> rows,
                                     std::span<const int64_t> window_offsets, const StepLinear& head) const;
  /// The head on that operand, without where scores go. Borrows both.
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
