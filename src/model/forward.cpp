#include "model/forward.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>

#include "base/error.hpp"

namespace mxlm {
namespace {

/// The distinct operand types that some Linears of a step read, and which of them each Linear reads.
struct Requests {
  std::vector<Operand> operands;
  std::vector<size_t> of_linear;
};

Requests requests_of(const Backend& backend, std::span<const StepLinear> linears, DType compute) {
  Requests out;
  for (const StepLinear& linear : linears) {
    const OperandType type = backend.operand_type(linear.activations, *linear.weight, compute);
    const auto same =
        std::find_if(out.operands.begin(), out.operands.end(), [&](const Operand& o) { return o.type == type; });
    out.of_linear.push_back(static_cast<size_t>(same - out.operands.begin()));
    if (same == out.operands.end()) out.operands.push_back({.type = type, .values = {}});
  }
  return out;
}

}  // namespace

/// Norm weights and biases on the device.
struct ForwardPass::Constants {
  struct Layer {
    Tensor attention_norm, mlp_norm;
    Tensor q, k, v, o, gate, up, down;  // biases, empty where there is none
  };
  std::vector<Layer> layers;
  Tensor final_norm, head_bias;
};

ForwardPass::ForwardPass(const ModelSpec& spec, Backend& backend, DType compute)
    : spec_(spec), backend_(backend), compute_(compute), constants_(std::make_unique<Constants>()) {
  const auto bias = [&](const LinearSpec& linear) {
    if (!linear.bias) return Tensor();
    if (compute == DType::f32) return backend.upload(linear.bias->matrix, DType::f32);
    return backend.upload(RoundedMatrix(linear.bias->matrix).view(), DType::f32);
  };
  for (const LayerSpec& layer : spec.layers) {
    constants_->layers.push_back({.attention_norm = backend.upload(layer.attention_norm.weight.matrix, compute),
                                  .mlp_norm = backend.upload(layer.mlp_norm.weight.matrix, compute),
                                  .q = bias(layer.q),
                                  .k = bias(layer.k),
                                  .v = bias(layer.v),
                                  .o = bias(layer.o),
                                  .gate = bias(layer.gate),
                                  .up = bias(layer.up),
                                  .down = bias(layer.down)});
  }
  constants_->final_norm = backend.upload(spec.final_norm.weight.matrix, compute);
  constants_->head_bias = bias(spec.head);
}

ForwardPass::~ForwardPass() = default;

int64_t ForwardPass::steps() const { return 2 * static_cast<int64_t>(spec_.layers.size()); }

bool ForwardPass::has_attention(int64_t step) const { return step % 2 == 0; }

std::vector<const LinearSpec*> ForwardPass::step_linears(int64_t step) const {
  const LayerSpec& layer = spec_.layers[static_cast<size_t>(step / 2)];
  if (has_attention(step)) return {&layer.q, &layer.k, &layer.v, &layer.o};
  return {&layer.gate, &layer.up, &layer.down};
}

MicroBatch ForwardPass::make_batch(std::span<const std::span<const int32_t>> windows) const {
  MicroBatch out;
  out.batch.offsets.push_back(0);
  std::map<int64_t, int64_t> longest;  // length key -> rows its table needs
  for (const auto& window : windows) {
    for (const int32_t id : window) {
      if (id < 0 || id >= spec_.vocabulary) {
        fail("Token id {} is outside the model's vocabulary of {}; tokenizer and model do not belong together.", id,
             spec_.vocabulary);
      }
    }
    out.batch.tokens.insert(out.batch.tokens.end(), window.begin(), window.end());
    out.batch.offsets.push_back(out.batch.rows());
    const auto length = static_cast<int64_t>(window.size());
    int64_t& rows = longest[spec_.rope.length_key(length)];
    rows = std::max(rows, length);
  }

  std::map<int64_t, int64_t> first_row;
  int64_t table_rows = 0;
  for (const auto& [key, rows] : longest) {
    first_row[key] = table_rows;
    table_rows += rows;
  }
  const int64_t half = spec_.rope.dim / 2;
  std::vector<float> cos(static_cast<size_t>(table_rows * half)), sin(cos.size());
  for (const auto& [key, rows] : longest) {
    const std::vector<float> frequencies = spec_.rope.inverse_frequencies(key);
    for (int64_t position = 0; position < rows; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<float>(position) * frequencies[static_cast<size_t>(i)];  // float32, as the reference
        const auto at = static_cast<size_t>((first_row[key] + position) * half + i);
        cos[at] = static_cast<float>(std::cos(angle));
        sin[at] = static_cast<float>(std::sin(angle));
      }
    }
  }
  const auto table = [&](const std::vector<float>& values) {
    return backend_.upload({.type = DType::f32,
                            .rows = table_rows,
                            .cols = half,
                            .stride = half,
                            .data = reinterpret_cast<const std::byte*>(values.data())},
                           compute_);
  };
  out.cos = table(cos);
  out.sin = table(sin);
  out.rotary_rows.reserve(out.batch.tokens.size());
  for (const auto& window : windows) {
    const auto length = static_cast<int64_t>(window.size());
    const int64_t first = first_row[spec_.rope.length_key(length)];
    for (int64_t p = 0; p < length; ++p) out.rotary_rows.push_back(static_cast<int32_t>(first + p));
  }
  return out;
}

Tensor ForwardPass::embed(const MicroBatch& batch) const {
  Tensor hidden = backend_.empty(compute_, batch.batch.rows(), spec_.hidden);
  backend_.embed(batch.batch, spec_.embedding.matrix, 1, nullptr, 0, hidden);
  return hidden;
}

void ForwardPass::run(int64_t step, const StepWeights& weights, const MicroBatch& batch, const Tensor& in,
                      Tensor& out) const {
  const auto index = static_cast<size_t>(step / 2);
  if (has_attention(step)) {
    run_attention(spec_.layers[index], weights, batch, in, out, index);
  } else {
    run_mlp(weights, batch, in, out, index);
  }
}

void ForwardPass::run_attention(const LayerSpec& layer, const StepWeights& weights, const MicroBatch& batch,
                                const Tensor& in, Tensor& out, size_t index) const {
  const Constants::Layer& constants = constants_->layers[index];
  const int64_t rows = in.rows();
  const std::span<const StepLinear> linears(weights.linears);
  const Tensor* const biases[] = {&constants.q, &constants.k, &constants.v, &constants.o};
  const auto bias = [&](size_t i) { return biases[i]->empty() ? nullptr : biases[i]; };

  Requests inputs = requests_of(backend_, linears.first(3), compute_);
  backend_.norm(in, {.weight = &constants.attention_norm, .epsilon = layer.attention_norm.epsilon}, batch.batch.offsets,
                inputs.operands);
  Tensor qkv[3];
  for (size_t i = 0; i < 3; ++i) {
    qkv[i] = backend_.empty(compute_, rows, linears[i].weight->rows());
    backend_.linear(inputs.operands[inputs.of_linear[i]], *linears[i].weight, {.bias = bias(i), .residual = nullptr},
                    qkv[i]);
  }
  backend_.rotate(qkv[0], spec_.heads, spec_.head_dim, batch.rotary());
  backend_.rotate(qkv[1], spec_.kv_heads, spec_.head_dim, batch.rotary());

  Requests attended = requests_of(backend_, linears.subspan(3), compute_);
  backend_.attention(qkv[0], qkv[1], qkv[2], batch.batch,
                     {.heads = spec_.heads,
                      .kv_heads = spec_.kv_heads,
                      .head_dim = spec_.head_dim,
                      .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(spec_.head_dim))),
                      .qk = weights.qk,
                      .pv = weights.pv},
                     attended.operands);
  backend_.linear(attended.operands[0], *linears[3].weight, {.bias = bias(3), .residual = &in}, out);
}

void ForwardPass::run_mlp(const StepWeights& weights, const MicroBatch& batch, const Tensor& in, Tensor& out,
                          size_t index) const {
  const Constants::Layer& constants = constants_->layers[index];
  const int64_t rows = in.rows();
  const std::span<const StepLinear> linears(weights.linears);
  const Tensor* const biases[] = {&constants.gate, &constants.up, &constants.down};
  const auto bias = [&](size_t i) { return biases[i]->empty() ? nullptr : biases[i]; };

  Requests inputs = requests_of(backend_, linears.first(2), compute_);
  backend_.norm(in, {.weight = &constants.mlp_norm, .epsilon = spec_.layers[index].mlp_norm.epsilon},
                batch.batch.offsets, inputs.operands);
  Tensor gate_up[2];
  for (size_t i = 0; i < 2; ++i) {
    gate_up[i] = backend_.empty(compute_, rows, linears[i].weight->rows());
    backend_.linear(inputs.operands[inputs.of_linear[i]], *linears[i].weight, {.bias = bias(i), .residual = nullptr},
                    gate_up[i]);
  }
  Requests activated = requests_of(backend_, linears.subspan(2), compute_);
  backend_.gated_activation(gate_up[0], gate_up[1], {.activation = spec_.activation}, batch.batch.offsets,
                            activated.operands);
  backend_.linear(activated.operands[0], *linears[2].weight, {.bias = bias(2), .residual = &in}, out);
}

Operand ForwardPass::head_operand(const Tensor& hidden, std::span<const int32_t> rows, const StepLinear& head) const {
  const Tensor selected = backend_.gather(hidden, rows);
  Operand operand{.type = backend_.operand_type(head.activations, *head.weight, compute_), .values = {}};
  backend_.norm(selected, {.weight = &constants_->final_norm, .epsilon = spec_.final_norm.epsilon}, {}, {&operand, 1});
  return operand;
}

const Tensor* ForwardPass::head_bias() const {
  return constants_->head_bias.empty() ? nullptr : &constants_->head_bias;
}

}  // namespace mxlm
