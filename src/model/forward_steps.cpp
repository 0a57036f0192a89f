// The steps of the forward pass.

#include <algorithm>
#include <cassert>

#include "model/constants.hpp"
#include "model/forward.hpp"

namespace mxlm {
namespace {

/// The number of an expert's rows that are computed at a time: enough for full speed, and few enough for the caches.
constexpr int64_t kExpertRows = 2048;

/// The distinct operands that Linears of a step read, and the index of each Linear's operand.
struct Operands {
  std::vector<Operand> operands;
  std::vector<size_t> of_linear;

  [[nodiscard]] const Operand& operator[](size_t linear) const { return operands[of_linear[linear]]; }
};

Operands operands_of(const Backend& backend, std::span<const StepLinear> linears, DType compute) {
  Operands out;
  for (const StepLinear& linear : linears) {
    const OperandType type = backend.operand_type(linear.product.activations, *linear.weight, compute);
    const auto same =
        std::find_if(out.operands.begin(), out.operands.end(), [&](const Operand& o) { return o.type == type; });
    out.of_linear.push_back(static_cast<size_t>(same - out.operands.begin()));
    if (same == out.operands.end()) {
      out.operands.push_back({.type = type, .values = {}, .row_scales = {}, .outliers = {}});
    }
  }
  return out;
}

std::vector<const LinearSpec*> pointers(const std::vector<LinearSpec>& linears) {
  std::vector<const LinearSpec*> out;
  out.reserve(linears.size());
  for (const LinearSpec& linear : linears) out.push_back(&linear);
  return out;
}

}  // namespace

/// The parts of which steps are made, with what they share.
struct ForwardPass::Piece {
  const ForwardPass& pass;
  Backend& backend = pass.backend_;
  const Constants& constants = *pass.constants_;
  DType compute = pass.compute_;

  /// out = x W^T + b, plus the residual if there is one.
  void linear(const LinearSpec& spec, const StepLinear& step, const Operand& x, const Tensor* residual,
              Tensor& out) const {
    backend.linear(x, *step.weight,
                   {.bias = constants.bias(spec),
                    .residual = residual,
                    .outputs = step.product.outputs,
                    .multiplier = residual != nullptr ? pass.spec_.residual_multiplier : 1,
                    .arithmetic = step.product.arithmetic},
                   out);
  }

  /// The operands that `linears` read, made from x, after the norm if there is one.
  [[nodiscard]] Operands inputs(const Tensor& x, const std::optional<NormSpec>& norm,
                                std::span<const StepLinear> linears, std::span<const int64_t> window_offsets) const {
    Operands out = operands_of(backend, linears, compute);
    const Arithmetic arithmetic = linears.front().product.arithmetic;
    if (arithmetic == Arithmetic::bf16_rounded) {
      Tensor rounded = backend.empty(compute, x.rows(), x.cols());
      norm ? backend.norm(x, constants.norm(*norm, arithmetic), rounded) : backend.copy(x, rounded);
      backend.round_to_bf16(rounded);
      backend.operands(rounded, window_offsets, out.operands);
    } else if (norm) {
      backend.norm(x, constants.norm(*norm, arithmetic), window_offsets, out.operands);
    } else {
      backend.operands(x, window_offsets, out.operands);
    }
    return out;
  }

  /// The products of Linears with their operands of `x`, one tensor for each Linear.
  [[nodiscard]] std::vector<Tensor> products(const std::vector<const LinearSpec*>& specs,
                                             std::span<const StepLinear> linears, const Operands& x) const {
    std::vector<Tensor> out;
    for (size_t i = 0; i < specs.size(); ++i) {
      out.push_back(backend.empty(compute, x[i].values.rows(), linears[i].weight->rows()));
      linear(*specs[i], linears[i], x[i], nullptr, out.back());
    }
    return out;
  }

  /// Computes attention, from the results of the q, k and v projections to the operands of the output projection.
  void attend(const AttentionSpec& attention, const StepWeights& weights, const MicroBatch& batch,
              std::vector<Tensor> qkv, std::span<Operand> outs) const {
    const ModelSpec& spec = pass.spec_;
    const int64_t q_width = int64_t{spec.heads} * spec.head_dim;
    const int64_t kv_width = int64_t{spec.kv_heads} * spec.head_dim;
    if (attention.clip > 0) {
      for (Tensor& tensor : qkv) backend.clamp(tensor, attention.clip);
    }
    Tensor q, k, v;
    int head_stride = spec.head_dim;
    switch (attention.layout) {
      case QkvLayout::separate:
        q = std::move(qkv[0]);
        k = std::move(qkv[1]);
        v = std::move(qkv[2]);
        break;
      case QkvLayout::blocks:
        q = qkv[0].columns(0, q_width);
        k = qkv[0].columns(q_width, kv_width);
        v = qkv[0].columns(q_width + kv_width, kv_width);
        break;
      case QkvLayout::by_head: {
        // Heads lie 3 * head_dim apart. Each part ends with the values of its last head.
        head_stride = 3 * spec.head_dim;
        const int64_t width = qkv[0].cols() - int64_t{2} * spec.head_dim;
        q = qkv[0].columns(0, width);
        k = qkv[0].columns(spec.head_dim, width);
        v = qkv[0].columns(int64_t{2} * spec.head_dim, width);
        break;
      }
    }
    const Arithmetic arithmetic = weights.arithmetic();
    if (attention.q_norm) backend.norm(q, constants.norm(*attention.q_norm, arithmetic), q);
    if (attention.k_norm) backend.norm(k, constants.norm(*attention.k_norm, arithmetic), k);
    if (attention.rope >= 0) {
      const Rotary rotary = batch.ropes[static_cast<size_t>(attention.rope)].view();
      backend.rotate(q, spec.heads, head_stride, rotary);
      backend.rotate(k, spec.kv_heads, head_stride, rotary);
    }
    if (arithmetic == Arithmetic::bf16_rounded) {
      for (Tensor* tensor : {&q, &k, &v}) backend.round_to_bf16(*tensor);
    }
    const auto sinks = constants.sinks.find(&attention);
    backend.attention(
        q, k, v, batch.batch,
        {.heads = spec.heads,
         .kv_heads = spec.kv_heads,
         .head_dim = spec.head_dim,
         .q_head_stride = head_stride,
         .kv_head_stride = head_stride,
         .scale = attention.scale,
         .softcap = attention.softcap,
         .sliding_window = attention.sliding_window,
         .slopes = spec.alibi_slopes,
         .sinks = sinks == constants.sinks.end() ? std::span<const float>() : std::span<const float>(sinks->second),
         .qk = weights.qk,
         .pv = weights.pv,
         .arithmetic = arithmetic},
        outs);
  }

  /// The operand of the Linear `out`, made from the MLP's first products.
  [[nodiscard]] Operands activated(const MlpSpec& mlp, const std::vector<Tensor>& in, const StepLinear& out,
                                   std::span<const int64_t> window_offsets) const {
    Operands operands = operands_of(backend, {&out, 1}, compute);
    if (out.product.arithmetic != Arithmetic::bf16_rounded) {
      activate(mlp, in, Arithmetic::model_dtype, window_offsets, operands.operands);
    } else {
      Operand rounded{.type = {.spec = std::nullopt, .storage = compute}, .values = {}};
      activate(mlp, in, Arithmetic::bf16_rounded, window_offsets, {&rounded, 1});
      backend.round_to_bf16(rounded.values);
      backend.operands(rounded.values, window_offsets, operands.operands);
    }
    return operands;
  }

  void activate(const MlpSpec& mlp, const std::vector<Tensor>& in, Arithmetic arithmetic,
                std::span<const int64_t> window_offsets, std::span<Operand> outs) const {
    GatedArgs args = mlp.activation;
    args.arithmetic = arithmetic;
    switch (mlp.kind) {
      case MlpSpec::Kind::plain:
        backend.activation(in[0], args.activation, arithmetic, window_offsets, outs);
        break;
      case MlpSpec::Kind::gated:
        backend.gated_activation(in[0], in[1], args, window_offsets, outs);
        break;
      case MlpSpec::Kind::gated_fused: {
        const int64_t half = in[0].cols() / 2;
        if (mlp.activation.interleaved) {
          backend.gated_activation(in[0], in[0], args, window_offsets, outs);
        } else {
          backend.gated_activation(in[0].columns(0, half), in[0].columns(half, half), args, window_offsets, outs);
        }
        break;
      }
    }
  }

  /// out = residual + norm(x W^T + b). Without a norm, the product adds the residual itself.
  void finish(const LinearSpec& spec, const StepLinear& step, const Operand& x, const std::optional<NormSpec>& norm,
              const Tensor& residual, Tensor& out) const {
    if (!norm) return linear(spec, step, x, &residual, out);
    Tensor y = backend.empty(compute, residual.rows(), residual.cols());
    linear(spec, step, x, nullptr, y);
    backend.norm(y, constants.norm(*norm, step.product.arithmetic), y);
    backend.add(y, residual, pass.spec_.residual_multiplier, out);
  }
};

void ForwardPass::run(const Step& step, const StepWeights& weights, const Fetch& fetch,
                      std::span<const MicroBatch> batches, std::span<const Tensor* const> in,
                      std::span<Tensor* const> out, const OnRows& on_rows) const {
  const LayerSpec& layer = spec_.layers[step.layer];
  if (step.linears_an_expert > 0) return run_mixture(layer, weights, fetch, batches, in, out, on_rows);
  for (size_t b = 0; b < batches.size(); ++b) {
    if (layer.parallel) {
      run_parallel(layer, weights, batches[b], *in[b], *out[b]);
    } else if (step.attention) {
      run_attention(layer, weights, batches[b], *in[b], *out[b]);
    } else {
      run_mlp(layer, weights, batches[b], *in[b], *out[b]);
    }
    on_rows(batches[b].batch.rows());
  }
}

void ForwardPass::run_attention(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch,
                                const Tensor& in, Tensor& out) const {
  const Piece piece{*this};
  const AttentionSpec& attention = layer.attention;
  const size_t n = attention.qkv.size();
  const std::span<const StepLinear> linears(weights.linears);
  std::vector<Tensor> qkv = piece.products(pointers(attention.qkv), linears,
                                           piece.inputs(in, attention.norm, linears.first(n), batch.batch.offsets));
  Operands attended = operands_of(backend_, linears.subspan(n, 1), compute_);
  piece.attend(attention, weights, batch, std::move(qkv), attended.operands);
  piece.finish(attention.o, linears[n], attended[0], attention.post_norm, in, out);
}

void ForwardPass::run_mlp(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch, const Tensor& in,
                          Tensor& out) const {
  const Piece piece{*this};
  const MlpSpec& mlp = layer.mlp;
  const size_t n = mlp.in.size();
  const std::span<const StepLinear> linears(weights.linears);
  const std::span<const int64_t> window_offsets(batch.batch.offsets);
  const std::vector<Tensor> products =
      piece.products(pointers(mlp.in), linears, piece.inputs(in, mlp.norm, linears.first(n), window_offsets));
  piece.finish(mlp.out, linears[n], piece.activated(mlp, products, linears[n], window_offsets)[0], mlp.post_norm, in,
               out);
}

void ForwardPass::run_parallel(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch,
                               const Tensor& in, Tensor& out) const {
  const Piece piece{*this};
  const AttentionSpec& attention = layer.attention;
  const MlpSpec& mlp = layer.mlp;
  const size_t n = attention.qkv.size(), m = mlp.in.size();
  const std::span<const int64_t> window_offsets(batch.batch.offsets);
  const std::span<const StepLinear> linears(weights.linears);
  const StepLinear& o = linears[n];
  const std::span<const StepLinear> mlp_linears = linears.subspan(n + 1);

  // If attention and MLP share a norm, their operands are made in one pass over its result.
  std::vector<StepLinear> first(linears.begin(), linears.begin() + static_cast<std::ptrdiff_t>(n));
  std::vector<const LinearSpec*> specs = pointers(attention.qkv);
  if (!mlp.norm) {
    first.insert(first.end(), mlp_linears.begin(), mlp_linears.begin() + static_cast<std::ptrdiff_t>(m));
    for (const LinearSpec& linear : mlp.in) specs.push_back(&linear);
  }
  std::vector<Tensor> products = piece.products(specs, first, piece.inputs(in, attention.norm, first, window_offsets));
  std::vector<Tensor> mlp_products;
  if (mlp.norm) {
    mlp_products =
        piece.products(pointers(mlp.in), mlp_linears, piece.inputs(in, mlp.norm, mlp_linears.first(m), window_offsets));
  } else {
    std::move(products.begin() + static_cast<std::ptrdiff_t>(n), products.end(), std::back_inserter(mlp_products));
    products.resize(n);
  }

  Operands attended = operands_of(backend_, {&o, 1}, compute_);
  piece.attend(attention, weights, batch, std::move(products), attended.operands);
  Tensor sum = backend_.empty(compute_, in.rows(), in.cols());
  piece.linear(attention.o, o, attended[0], nullptr, sum);
  Tensor mlp_out = backend_.empty(compute_, in.rows(), in.cols());
  piece.linear(mlp.out, mlp_linears[m], piece.activated(mlp, mlp_products, mlp_linears[m], window_offsets)[0], nullptr,
               mlp_out);
  backend_.add(mlp_out, sum, 1, sum);
  backend_.add(sum, in, spec_.residual_multiplier, out);
}

void ForwardPass::run_mixture(const LayerSpec& layer, const StepWeights& weights, const Fetch& fetch,
                              std::span<const MicroBatch> batches, std::span<const Tensor* const> in,
                              std::span<Tensor* const> out, const OnRows& on_rows) const {
  const Piece piece{*this};
  const MlpSpec& mlp = layer.mlp;
  assert(!mlp.post_norm);
  std::vector<int64_t> window_offsets{0};  // of the windows of all micro-batches
  std::vector<int64_t> first_row{0};
  for (const MicroBatch& batch : batches) {
    for (size_t w = 1; w < batch.batch.offsets.size(); ++w)
      window_offsets.push_back(first_row.back() + batch.batch.offsets[w]);
    first_row.push_back(first_row.back() + batch.batch.rows());
  }
  const int64_t rows = first_row.back();

  // The rows that each expert gets, over all micro-batches.
  struct Share {
    std::vector<int32_t> rows;
    std::vector<float> weights;
  };
  std::vector<Share> shares(mlp.experts.size());
  Tensor normed = backend_.empty(compute_, rows, spec_.hidden);
  for (size_t b = 0; b < batches.size(); ++b) {
    Tensor part = normed.view(first_row[b], batches[b].batch.rows(), 0, spec_.hidden);
    if (mlp.norm) {
      backend_.norm(*in[b], constants_->norm(*mlp.norm, weights.arithmetic()), part);
    } else {
      backend_.copy(*in[b], part);
    }
    const Operands router = piece.inputs(part, std::nullopt, {weights.linears.data(), 1}, batches[b].batch.offsets);
    Tensor logits = backend_.empty(compute_, part.rows(), mlp.router->outputs());
    piece.linear(*mlp.router, weights.linears[0], router[0], nullptr, logits);
    const Routing routing = backend_.choose_experts(logits, mlp.routing);
    for (size_t i = 0; i < routing.experts.size(); ++i) {
      Share& share = shares[static_cast<size_t>(routing.experts[i])];
      share.rows.push_back(static_cast<int32_t>(first_row[b]) +
                           static_cast<int32_t>(i / static_cast<size_t>(routing.top_k)));
      share.weights.push_back(routing.weights[i]);
    }
  }

  Tensor sum = backend_.empty(DType::f32, rows, spec_.hidden);
  backend_.zero(sum);
  const size_t n = mlp.experts.front().in.size();
  double progress = 0;  // in rows; on_rows gets whole rows
  int64_t told = 0;
  for (size_t e = 0; e < mlp.experts.size(); ++e) {
    const Share& share = shares[e];
    if (!share.rows.empty()) {
      std::vector<StepLinear> linears(weights.linears.begin() + static_cast<std::ptrdiff_t>(1 + e * (n + 1)),
                                      weights.linears.begin() + static_cast<std::ptrdiff_t>(1 + (e + 1) * (n + 1)));
      for (size_t l = 0; l <= n; ++l) linears[l].weight = fetch(1 + e * (n + 1) + l);
      // The rows of a window stay together, because the scales of some formats depend on all of them.
      for (size_t begin = 0; begin < share.rows.size();) {
        std::vector<int64_t> offsets{0};
        size_t end = begin;
        auto window = std::upper_bound(window_offsets.begin(), window_offsets.end(), share.rows[begin]);
        while (end < share.rows.size()) {
          size_t next = end;
          while (next < share.rows.size() && share.rows[next] < *window) ++next;
          if (offsets.size() > 1 && static_cast<int64_t>(next - begin) > kExpertRows) break;
          if (next > end) offsets.push_back(static_cast<int64_t>(next - begin));
          end = next;
          ++window;
        }
        const std::span<const int32_t> chunk(share.rows.data() + begin, end - begin);
        const Tensor x = backend_.gather(normed, chunk);
        const std::vector<Tensor> products =
            piece.products(pointers(mlp.experts[e].in), linears,
                           piece.inputs(x, std::nullopt, std::span<const StepLinear>(linears).first(n), offsets));
        Tensor y = backend_.empty(compute_, x.rows(), spec_.hidden);
        piece.linear(mlp.experts[e].out, linears[n], piece.activated(mlp, products, linears[n], offsets)[0], nullptr,
                     y);
        backend_.accumulate(y, chunk, {share.weights.data() + begin, chunk.size()}, sum);
        begin = end;
      }
    }
    progress += static_cast<double>(share.rows.size()) / mlp.routing.top_k;
    const auto whole = e + 1 == mlp.experts.size() ? rows : static_cast<int64_t>(progress);
    on_rows(whole - told);
    told = whole;
  }
  for (size_t b = 0; b < batches.size(); ++b) {
    Tensor part = sum.view(first_row[b], batches[b].batch.rows(), 0, spec_.hidden);
    backend_.add(part, *in[b], spec_.residual_multiplier, *out[b]);
  }
}

}  // namespace mxlm
