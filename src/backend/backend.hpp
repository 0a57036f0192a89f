#pragma once

// The operations that a device offers to the forward pass. The forward pass never says "quantise": it asks whatever
// produces an activation (a norm, an activation function, attention) for operands in the specs that its consumers want,
// so that a backend can fuse the quantising into what it was computing anyway.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mx/format.hpp"
#include "tensor/tensor.hpp"

namespace mxlm {

/// One side of a matrix product: a block format, or nothing (the values as they are in the model dtype).
using OperandSpec = std::optional<mx::BlockFormat>;

/// Both sides of the product that a Linear computes.
struct ProductSpec {
  OperandSpec weights;
  OperandSpec activations;
  [[nodiscard]] bool replaced() const { return weights.has_value() || activations.has_value(); }
  friend bool operator==(const ProductSpec&, const ProductSpec&) = default;
};

/// What a consumer wants of an activation: the spec, and the dtype that its values are stored in (bf16 wherever that is
/// exact, float32 where it is not).
struct OperandType {
  OperandSpec spec;
  DType storage = DType::bf16;
  friend bool operator==(const OperandType&, const OperandType&) = default;
};

/// An activation [rows, K] as a matrix product reads it: quantised and decoded where its spec says so.
struct Operand {
  OperandType type;
  Tensor values;
};

/// What a backend made of a weight [N, K] and a spec, ready to multiply with.
class PreparedWeight {
 public:
  virtual ~PreparedWeight() = default;
  [[nodiscard]] virtual int64_t rows() const = 0;  // N, outputs
  [[nodiscard]] virtual int64_t cols() const = 0;  // K, inputs
  [[nodiscard]] virtual size_t bytes() const = 0;  // of memory held
  /// BF16 when every value is exactly a bfloat16, else float32: decides what its operands are stored as.
  [[nodiscard]] virtual DType storage() const = 0;
};

/// A weight in the form that is kept between rounds: codes and scales for a block format of at most 8 bits a code
/// (an MXFP4 weight takes 4.25 bits an element), else the prepared form itself.
class KeptWeight {
 public:
  virtual ~KeptWeight() = default;
  [[nodiscard]] virtual size_t bytes() const = 0;
};

/// A micro-batch: windows packed one after the other without padding. `offsets` has windows + 1 entries; row r of every
/// activation is token r.
struct Batch {
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets;
  /// Real keys of each window (the rest is padding on the right that no query attends to); empty = all are real.
  std::vector<int32_t> keys;
  [[nodiscard]] int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  [[nodiscard]] int64_t windows() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

/// RMSNorm as llama has it: y = round(x * rsqrt(mean(x^2) + eps)) * weight, statistics in float32.
struct NormArgs {
  const Tensor* weight = nullptr;  // [1, width], model dtype
  float epsilon = 1e-5F;
};

/// Rotary tables of a micro-batch: `cos` and `sin` [table rows, rotary_dim / 2] in the model dtype; token r uses table
/// row `rows[r]` (windows of different length may have different frequencies).
struct Rotary {
  const Tensor* cos = nullptr;
  const Tensor* sin = nullptr;
  std::span<const int32_t> rows;
};

struct AttentionArgs {
  int heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;
  ProductSpec qk;  // weights: Q (the first operand), activations: K
  ProductSpec pv;  // weights: P, activations: V
};

enum class Activation : uint8_t { silu, gelu_tanh, gelu_erf, relu };

/// What a linear does after the product, in this order: + bias in float32, round to the model dtype, + residual, round.
struct LinearEpilogue {
  const Tensor* bias = nullptr;      // [1, N], float32
  const Tensor* residual = nullptr;  // [rows, N], model dtype; may be the output itself
};

/// Figures of one scored token under one variant.
struct TokenScore {
  double nll = 0;      // -ln p(target)
  double kld = 0;      // KL(baseline || variant), 0 for the baseline
  float p = 0;         // p(target)
  int32_t top1 = 0;    // argmax, the lowest id among equals
  bool finite = true;  // false if a logit is NaN or Inf
};

/// One variant's side of the head for a micro-batch.
struct HeadInput {
  const Operand* hidden = nullptr;         // [rows, hidden]: only rows that are scored
  const PreparedWeight* weight = nullptr;  // [vocabulary, hidden]
  const Tensor* bias = nullptr;            // [1, vocabulary] float32, or null
  std::span<TokenScore> scores;            // out, one a row
  double* seconds = nullptr;               // out: += the time of this variant's part
};

/// Sums of squares over values of two tensors: of each, and of other - reference.
struct ErrorSums {
  double reference = 0, other = 0, difference = 0;
  ErrorSums& operator+=(const ErrorSums& more) {
    reference += more.reference;
    other += more.other;
    difference += more.difference;
    return *this;
  }
  friend bool operator==(const ErrorSums&, const ErrorSums&) = default;
  /// 10 log10(signal / noise) in dB: Inf where nothing differs, NaN where both are zero.
  [[nodiscard]] double sqnr_db() const;
  /// Of the angle between the two as vectors; NaN where one is zero.
  [[nodiscard]] double cosine() const;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// What computes, for the report and the plan's hash: "cpu amx-bf16", ...
  [[nodiscard]] virtual std::string description() const = 0;

  // --- memory
  /// An uninitialised [rows, cols] activation.
  virtual Tensor empty(DType type, int64_t rows, int64_t cols) = 0;
  /// Device copy of a host matrix, converted to `type` (f32 or bf16).
  virtual Tensor upload(const HostMatrix& source, DType type) = 0;
  virtual void copy(const Tensor& from, Tensor& to) = 0;
  /// float32 host copy, rows packed: `out` has rows * cols elements.
  virtual void download(const Tensor& from, std::span<float> out) = 0;
  /// Sums over each row of two tensors of one shape and dtype; `rows` has an entry a row. A row's sums depend on that
  /// row alone.
  virtual void compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) = 0;

  // --- weights
  /// Quantises (along K) and lays out a weight.
  virtual std::shared_ptr<const PreparedWeight> prepare(const HostMatrix& source, const OperandSpec& spec) = 0;
  /// The form to keep between rounds, and back from it; prepare(*keep(w, s)) multiplies to the same bits as prepare(w,
  /// s).
  virtual std::shared_ptr<const KeptWeight> keep(const HostMatrix& source, const OperandSpec& spec) = 0;
  virtual std::shared_ptr<const PreparedWeight> prepare(std::shared_ptr<const KeptWeight> kept) = 0;
  /// The operand type that a product of `spec` with `weight` reads, in a model of dtype `model`.
  [[nodiscard]] virtual OperandType operand_type(const OperandSpec& activations, const PreparedWeight& weight,
                                                 DType model) const = 0;

  // --- the forward pass; activations are [rows, width] of the model dtype. `outs` have their type set; the backend
  //     makes their values. `plain`, where given, receives the un-quantised result too.
  /// hidden[r] = table[tokens[r]]; `table` is the checkpoint's own memory, rows are converted to hidden's dtype.
  virtual void embed(const Batch& batch, const HostMatrix& table, Tensor& hidden) = 0;
  virtual void norm(const Tensor& x, const NormArgs& args, std::span<Operand> outs) = 0;
  virtual void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) = 0;
  /// Rotates (rotate-half) the first rotary_dim of every head of x [rows, heads * head_dim] in place.
  virtual void rotate(Tensor& x, int heads, int head_dim, const Rotary& rotary) = 0;
  /// Causal attention within each window; q [rows, heads * head_dim], k and v [rows, kv_heads * head_dim].
  virtual void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                         const AttentionArgs& args, std::span<Operand> outs) = 0;
  /// act(gate) * up, each rounded to the model dtype.
  virtual void gated_activation(const Tensor& gate, const Tensor& up, Activation activation,
                                std::span<Operand> outs) = 0;

  // --- the head
  /// The rows of x whose index is in `rows`, in that order.
  virtual Tensor gather(const Tensor& x, std::span<const int32_t> rows) = 0;
  /// Scores every row under every input (inputs[0] is the baseline) against `targets`; never holds rows x vocabulary.
  virtual void score(std::span<const HeadInput> inputs, std::span<const int32_t> targets) = 0;
  /// float32 logits [rows, vocabulary] of a few rows.
  virtual void logits(const HeadInput& input, std::span<float> out) = 0;
};

}  // namespace mxlm
