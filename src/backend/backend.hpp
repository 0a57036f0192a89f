#pragma once

// The operations that a device offers to the forward pass. The forward pass never says "quantise": it asks whatever
// produces an activation (a norm, an activation function, attention) for operands in the specs that its consumers want,
// so that a backend can fuse the quantising into what it was computing anyway.

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mx/format.hpp"
#include "tensor/tensor.hpp"

namespace mxlm {

/// One side of a matrix product: a block format, or nothing (the values as they are in the model dtype).
using OperandSpec = std::optional<mx::Format>;

/// How operands and results of operations are rounded.
enum class Arithmetic : uint8_t {
  model_dtype,   // results of operations are rounded to the model dtype
  bf16_rounded,  // operands are rounded to bfloat16 before anything else, and so is the result of every product and
                 // vector operation (`vector=bf16`: microxcaling's global mode; docs/numerics.md)
};

/// Both sides of the product that a Linear computes, and what becomes of its result (attention products leave it).
struct ProductSpec {
  OperandSpec weights;
  OperandSpec activations;
  OperandSpec outputs = {};                         // quantised after the bias, along the last axis
  Arithmetic arithmetic = Arithmetic::model_dtype;  // of the product and the vector operations around it
  [[nodiscard]] bool replaced() const { return weights.has_value() || activations.has_value(); }
  [[nodiscard]] bool same_weights(const ProductSpec& other) const {
    return weights == other.weights && arithmetic == other.arithmetic;
  }
  friend bool operator==(const ProductSpec&, const ProductSpec&) = default;
};

/// What a consumer wants of an activation: the spec, and the dtype that its values are stored in (bf16 wherever that is
/// exact, float32 where it is not, FP8 with row scales where a backend folds exponents).
struct OperandType {
  OperandSpec spec;
  DType storage = DType::bf16;
  friend bool operator==(const OperandType&, const OperandType&) = default;
};

/// The part of an operand that only the backend that made it reads.
class DeviceOperand {
 public:
  virtual ~DeviceOperand() = default;
};

/// An activation [rows, K] as a matrix product reads it: quantised and decoded where its spec says so.
struct Operand {
  OperandType type;
  Tensor values = {};
  Tensor row_scales = {};  // [1, rows] float32, of formats with a scale a row or tensor: x = values * row_scales; else
                           // empty
  Tensor outliers = {};    // [rows, K] model dtype or float32, what such a format leaves out of `values`; else empty
  std::shared_ptr<DeviceOperand> device = {};  // what a storage narrower than the format needs beside its values
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
  /// How its products are computed, for the report: "bf16", "float32", "fp8" (exponents folded), "block-scaled fp8"...
  [[nodiscard]] virtual std::string route() const { return storage() == DType::bf16 ? "bf16" : "float32"; }
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

enum class NormKind : uint8_t { rms, layer };

/// RMSNorm: n = x * rsqrt(mean(x^2) + eps); LayerNorm: n = (x - mean) * rsqrt(variance + eps). Statistics in float32.
/// y = n * (weight + weight_offset) + bias in float32, rounded once; with `round_before_weight` (llama) n is rounded
/// first, then multiplied in the model dtype (an RMSNorm; a LayerNorm always rounds once).
struct NormArgs {
  NormKind kind = NormKind::rms;
  const Tensor* weight = nullptr;  // [1, cols] or [1, group], model dtype; null = all ones
  const Tensor* bias = nullptr;    // as weight; null = none
  float epsilon = 1e-5F;
  float weight_offset = 0;  // gemma: 1
  bool round_before_weight = true;
  /// Columns that are normalised together (a head, for q and k norms); 0 = the whole row. A weight of `group` values
  /// serves every group, one of `cols` values has its own part for each.
  int64_t group = 0;
  Arithmetic arithmetic = Arithmetic::model_dtype;  // bf16_rounded: a LayerNorm only
};

/// Rotary tables of a micro-batch: `cos` and `sin` [table rows, rotary_dim / 2]; token r uses table row `rows[r]`
/// (windows of different length may have different frequencies). In the model dtype, each product and the sum are
/// rounded to it; in float32, the result alone is rounded.
struct Rotary {
  const Tensor* cos = nullptr;
  const Tensor* sin = nullptr;
  std::span<const int32_t> rows;
  bool interleaved = false;  // pairs (2i, 2i + 1) instead of (i, i + rotary_dim / 2)
};

struct AttentionArgs {
  int heads = 0, kv_heads = 0, head_dim = 0;
  /// Distance of two heads in a row of q (and of k and v), for projections that interleave q, k and v by head; 0 =
  /// head_dim. The output's heads are always packed.
  int q_head_stride = 0, kv_head_stride = 0;
  float scale = 1;
  float softcap = 0;                   // scores become softcap * tanh(scores / softcap), after the scale; 0 = none
  int64_t sliding_window = 0;          // query q sees keys k > q - window; 0 = all before it
  std::span<const float> slopes = {};  // [heads] ALiBi: score += slope * (k - q); empty = none
  std::span<const float> sinks = {};   // [heads] a logit that takes part in the softmax and is dropped; empty = none
  ProductSpec qk = {};                 // weights: Q (the first operand), activations: K
  ProductSpec pv = {};                 // weights: P, activations: V
  Arithmetic arithmetic = Arithmetic::model_dtype;  // of the products and of each operation of the softmax
};

/// gelu_tanh is computed in float32 and rounded once; gelu_new is the same formula op by op in the model dtype.
enum class Activation : uint8_t { silu, gelu_tanh, gelu_erf, gelu_new, quick_gelu, relu, relu_squared, swiglu_oai };

/// act(gate) * up, each rounded to the model dtype. swiglu_oai: (up + 1) * gate * sigmoid(1.702 gate) with gate <=
/// limit and |up| <= limit, op by op in the model dtype.
struct GatedArgs {
  Activation activation = Activation::silu;
  bool interleaved = false;  // gate and up are the even and odd columns of the tensor given as `gate` (`up` is ignored)
  float limit = 0;           // swiglu_oai only
  Arithmetic arithmetic = Arithmetic::model_dtype;  // of each operation of the function
};

/// What a linear does after the product, in this order: + bias in float32, round to the model dtype, quantise along the
/// row (`outputs`), * multiplier and round (unless it is 1), + residual, round.
struct LinearEpilogue {
  const Tensor* bias = nullptr;      // [1, N], float32
  const Tensor* residual = nullptr;  // [rows, N], model dtype; may be the output itself
  OperandSpec outputs = std::nullopt;
  float multiplier = 1;
  Arithmetic arithmetic = Arithmetic::model_dtype;  // bf16_rounded: the product, then its sum with the rounded bias
};

/// Which experts each row goes to, on the host.
struct Routing {
  int top_k = 0;
  std::vector<int32_t> experts;  // [rows, top_k], ascending ids within a row
  std::vector<float> weights;    // [rows, top_k]
};

/// From router logits to experts, in float32; ties go to the lower id.
struct RoutingArgs {
  enum class Score : uint8_t { softmax_all, softmax_chosen };  // softmax before choosing / over the chosen logits
  int top_k = 1;
  Score score = Score::softmax_all;
  bool normalise = false;      // divide the chosen weights by their sum
  bool round_weights = false;  // to the model dtype, in the end
};

/// What a row of the head is scored against.
enum class ScoreKind : uint8_t {
  next_token,  // the target it is given
  self,        // its own most likely token under the variant at hand; the entropy of the row is measured too
};

/// Figures of one scored token under one variant.
struct TokenScore {
  double nll = 0;         // -ln p(target)
  double kld = 0;         // KL(baseline || variant), nats, 0 for the baseline
  float p = 0;            // p(target)
  int32_t top1 = 0;       // argmax, the lowest id among equals
  float entropy = 0;      // -sum p ln p over the vocabulary, in nats; measured for ScoreKind::self only
  float kld_reverse = 0;  // KL(variant || baseline), nats, 0 for the baseline
  // Jensen-Shannon divergence of baseline and variant, nats; NaN where HeadJob::jensen_shannon does not ask for it.
  float jensen_shannon = std::numeric_limits<float>::quiet_NaN();
  bool finite = true;  // false if a logit is NaN or Inf
};

/// One variant's side of the head for a micro-batch.
struct HeadJob {
  const Operand* hidden = nullptr;                  // [rows, hidden]: only rows that are scored
  const PreparedWeight* weight = nullptr;           // [vocabulary, hidden]
  const Tensor* bias = nullptr;                     // [1, vocabulary] float32, or null
  float logit_multiplier = 1;                       // logits *= this, rounded to float32 only
  float logit_softcap = 0;                          // then logits = softcap * tanh(logits / softcap); 0 = none
  Arithmetic arithmetic = Arithmetic::model_dtype;  // of the product, of its sum with the bias, and of tanh
  std::span<TokenScore> scores = {};                // out, one a row
  double* seconds = nullptr;                        // out: += the time of this variant's part
  ScoreKind kind = ScoreKind::next_token;           // the same for all inputs
  // Measure TokenScore::jensen_shannon, too. A term needs both softmax denominators, so every product of the head is
  // computed a second time. The same for all inputs.
  bool jensen_shannon = false;
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

/// A timestamp in a backend's work. On a device it is reached when all operations asked for before it have finished.
struct Mark {
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<void> event;  // of a device
};

/// Memory of the device that a backend runs on; all zero on the CPU, whose memory is the machine's own.
struct DeviceMemory {
  uint64_t limit = 0;  // what this backend may use
  uint64_t used = 0, peak = 0;
};

/// How often products took a route other than the exact one, in rows of operands.
struct RouteCounts {
  int64_t products = 0;   // of the fast route
  int64_t rows = 0;       // of their operands
  int64_t fell_back = 0;  // of these, computed on the exact route because they did not fit
};

/// Adds the sums of rows up by windows, in the order of the rows; `window_offsets` has one entry more than `sums`.
void sum_by_window(std::span<const ErrorSums> rows, std::span<const int64_t> window_offsets, std::span<ErrorSums> sums);

/// The operations of one device. Every operation is pure, so that a backend, or a decorator of one, that lacks an
/// operation does not compile.
///
/// Threads: a backend belongs to the thread that made it, and only that thread calls it; nothing here locks. Programs
/// that compute on several threads make a backend for each. A backend may spread an operation over threads of its own.
///
/// Order: operations take effect in the order of the calls. Those of a device may run beside the caller, until one
/// that hands figures to the host (download, compare, settle, seconds, route, score, logits) waits for them.
///
/// No result depends on the number of threads or on which rows share a batch.
class Backend {
 public:
  virtual ~Backend() = default;

  // --- the device
  /// What computes, for the report and the plan's hash: "cpu amx-bf16", ...
  [[nodiscard]] virtual std::string description() const = 0;
  [[nodiscard]] virtual DeviceMemory device_memory() const = 0;
  [[nodiscard]] virtual RouteCounts route_counts() = 0;

  // --- time: a clock of the host alone says nothing of operations that run beside the caller
  virtual Mark mark() = 0;
  /// Seconds between two marks; waits for the second.
  virtual double seconds(const Mark& from, const Mark& to) = 0;

  // --- activations
  /// An uninitialised [rows, cols] activation.
  virtual Tensor empty(DType type, int64_t rows, int64_t cols) = 0;
  /// Device copy of a host matrix, converted to `type` (f32 or bf16).
  virtual Tensor upload(const HostMatrix& source, DType type) = 0;
  virtual void copy(const Tensor& from, Tensor& to) = 0;
  /// x = 0.
  virtual void zero(Tensor& x) = 0;
  /// The rows of x whose index is in `rows`, in that order.
  virtual Tensor gather(const Tensor& x, std::span<const int32_t> rows) = 0;
  /// float32 host copy, rows packed: `out` has rows * cols elements.
  virtual void download(const Tensor& from, std::span<float> out) = 0;

  // --- errors of activations
  /// Sums over each row of two tensors of one shape and dtype; `rows` has an entry a row. A row's sums depend on that
  /// row alone.
  virtual void compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) = 0;
  /// The same, added up by windows (`window_offsets` + 1 offsets) in a fixed order. A device fills `sums` no earlier
  /// than `settle`; until then they stay where they are.
  virtual void compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> window_offsets,
                               std::span<ErrorSums> sums) = 0;
  /// Waits for the sums of compare_windows.
  virtual void settle() = 0;

  // --- weights
  /// Starts bringing a matrix that prepare or keep will be asked for to the device, while it computes other things;
  /// only a hint. The source stays valid until `forget`, which lets go of what was brought.
  virtual void prefetch(const HostMatrix& source) = 0;
  virtual void forget(const HostMatrix& source) = 0;
  /// Quantises (along K) and lays out a weight.
  virtual std::shared_ptr<const PreparedWeight> prepare(const HostMatrix& source, const OperandSpec& spec) = 0;
  /// The form to keep between rounds, and back from it; prepare(*keep(w, s)) multiplies to the same bits as prepare(w,
  /// s).
  virtual std::shared_ptr<const KeptWeight> keep(const HostMatrix& source, const OperandSpec& spec) = 0;
  virtual std::shared_ptr<const PreparedWeight> prepare(std::shared_ptr<const KeptWeight> kept) = 0;
  /// The operand type that a product of `spec` with `weight` reads, in a model of dtype `model`.
  [[nodiscard]] virtual OperandType operand_type(const OperandSpec& activations, const PreparedWeight& weight,
                                                 DType model) const = 0;

  // --- embeddings
  /// Says that `embed` will read this table again and again until `drop_table`, so that a device may keep a copy.
  virtual void hold_table(const HostMatrix& table) = 0;
  virtual void drop_table(const HostMatrix& table) = 0;
  /// hidden[r] = table[tokens[r]] * multiplier, rounded; `table` is the checkpoint's own memory, rows are converted to
  /// hidden's dtype. `positions`, if not null, is a table whose row (position in the window + position_offset) is
  /// added, and the sum rounded.
  virtual void embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
                     int64_t position_offset, Tensor& hidden) = 0;

  // --- products and vector operations. Activations are [rows, width] of the model dtype, and may be column views of
  //     wider activations where no operand is asked of them. `outs` have their type set; the backend makes their
  //     values. `window_offsets` are the row offsets of the windows (windows + 1 entries), for formats whose scale
  //     depends on a whole window.
  virtual void norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
                    std::span<Operand> outs) = 0;
  /// The same, in place or into a tensor (`out` may be `x`).
  virtual void norm(const Tensor& x, const NormArgs& args, Tensor& out) = 0;
  /// Operands of an activation that is there already; they may share its memory, so it stays as it is while they live.
  virtual void operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) = 0;
  virtual void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) = 0;
  /// Rotates the first rotary_dim of every head of x in place; heads are `head_stride` columns apart.
  virtual void rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) = 0;
  /// x = min(max(x, -limit), limit), in place.
  virtual void clamp(Tensor& x, float limit) = 0;
  /// x = x rounded to bfloat16, in place; x keeps its dtype.
  virtual void round_to_bf16(Tensor& x) = 0;
  /// Causal attention within each window; q [rows, heads * head_dim], k and v [rows, kv_heads * head_dim].
  virtual void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                         const AttentionArgs& args, std::span<Operand> outs) = 0;
  /// `arithmetic` as in GatedArgs.
  virtual void activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                          std::span<const int64_t> window_offsets, std::span<Operand> outs) = 0;
  virtual void gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                                std::span<const int64_t> window_offsets, std::span<Operand> outs) = 0;
  /// out = round(round(a) * multiplier) + b, rounded; `a` may be float32 in a bfloat16 model; `out` may be either.
  virtual void add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) = 0;

  // --- experts
  virtual Routing choose_experts(const Tensor& logits, const RoutingArgs& args) = 0;
  /// sum[rows[i]] += weights[i] * y[i] in float32; `sum` is float32, every row occurs at most once in `rows`.
  virtual void accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights,
                          Tensor& sum) = 0;

  // --- the head
  /// Scores every row under every input (inputs[0] is the baseline) against `targets` (valid ids also where the kind of
  /// score does without); never holds rows x vocabulary.
  virtual void score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) = 0;
  /// float32 logits [rows, vocabulary] of a few rows.
  virtual void logits(const HeadJob& input, std::span<float> out) = 0;
};

}  // namespace mxlm
