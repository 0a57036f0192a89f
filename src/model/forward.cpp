#include "model/forward.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.hpp"
#include "model/constants.hpp"

namespace mxlm {
namespace {

/// The table of one RopeSpec with this many rows for each length key.
std::shared_ptr<const RotaryTable> make_table(Backend& backend, const RopeSpec& rope,
                                              const std::map<int64_t, int64_t>& rows_of_key, DType compute) {
  const auto out = std::make_shared<RotaryTable>();
  int64_t table_rows = 0;
  for (const auto& [key, rows] : rows_of_key) {
    out->parts[key] = {table_rows, rows};
    table_rows += rows;
  }
  const int64_t half = rope.dim / 2;
  std::vector<float> cos(static_cast<size_t>(table_rows * half)), sin(cos.size());
  for (const auto& [key, part] : out->parts) {
    const std::vector<float> frequencies = rope.inverse_frequencies(key);
    const auto scale = static_cast<float>(rope.attention_factor);
    for (int64_t position = 0; position < part.second; ++position) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<float>(position) * frequencies[static_cast<size_t>(i)];  // float32, as in the reference
        const auto at = static_cast<size_t>((part.first + position) * half + i);
        cos[at] = static_cast<float>(std::cos(angle)) * scale;
        sin[at] = static_cast<float>(std::sin(angle)) * scale;
      }
    }
  }
  const auto upload = [&](const std::vector<float>& values) {
    return backend.upload({.type = DType::f32,
                           .rows = table_rows,
                           .cols = half,
                           .stride = half,
                           .data = reinterpret_cast<const std::byte*>(values.data())},
                          rope.float32_tables ? DType::f32 : compute);
  };
  out->cos = upload(cos);
  out->sin = upload(sin);
  return out;
}

/// The rotary tables for windows of these lengths. `last` is the table of the micro-batch before, which is used again
/// if it has all rows.
RotaryTables make_tables(Backend& backend, const RopeSpec& rope, std::span<const int64_t> lengths, DType compute,
                         std::shared_ptr<const RotaryTable>& last) {
  std::map<int64_t, int64_t> longest;  // length key -> rows that its table needs
  for (const int64_t length : lengths) {
    int64_t& rows = longest[rope.length_key(length)];
    rows = std::max(rows, length);
  }
  const bool serves = last && std::all_of(longest.begin(), longest.end(), [&](const auto& wanted) {
                        const auto found = last->parts.find(wanted.first);
                        return found != last->parts.end() && found->second.second >= wanted.second;
                      });
  if (!serves) last = make_table(backend, rope, longest, compute);
  RotaryTables out{.table = last, .rows = {}, .interleaved = rope.interleaved};
  for (const int64_t length : lengths) {
    const int64_t first = last->parts.at(rope.length_key(length)).first;
    for (int64_t p = 0; p < length; ++p) out.rows.push_back(static_cast<int32_t>(first + p));
  }
  return out;
}

}  // namespace

ForwardPass::ForwardPass(const ModelSpec& spec, Backend& backend, DType compute)
    : spec_(spec),
      backend_(backend),
      compute_(compute),
      steps_(steps_of(spec)),
      constants_(std::make_unique<Constants>()) {
  std::vector<std::byte> storage;
  for (const LinearSpec* linear : spec.linears()) {
    if (!linear->bias) continue;
    const HostMatrix bias = linear->bias->view(storage);
    constants_->biases.emplace(linear, compute == DType::f32 ? backend.upload(bias, DType::f32)
                                                             : backend.upload(RoundedMatrix(bias).view(), DType::f32));
  }
  const auto add_norm = [&](const std::optional<NormSpec>& norm) {
    if (!norm) return;
    Constants::Norm& tensors = constants_->norms[&*norm];
    if (norm->weight) tensors.weight = backend.upload(norm->weight->view(storage), compute);
    if (norm->bias) tensors.bias = backend.upload(norm->bias->view(storage), compute);
  };
  for (const LayerSpec& layer : spec.layers) {
    for (const auto* norm : {&layer.attention.norm, &layer.attention.post_norm, &layer.attention.q_norm,
                             &layer.attention.k_norm, &layer.mlp.norm, &layer.mlp.post_norm}) {
      add_norm(*norm);
    }
    if (layer.attention.sinks) {
      const Tensor sinks = backend.upload(layer.attention.sinks->view(storage), compute);
      std::vector<float>& values = constants_->sinks[&layer.attention];
      values.resize(static_cast<size_t>(sinks.cols()));
      backend.download(sinks, values);
    }
  }
  add_norm(spec.final_norm);
  backend.hold_table(spec.embedding.matrix);
}

ForwardPass::~ForwardPass() { backend_.drop_table(spec_.embedding.matrix); }

MicroBatch ForwardPass::make_batch(std::span<const std::span<const int32_t>> windows) const {
  MicroBatch out;
  out.batch.offsets.push_back(0);
  std::vector<int64_t> lengths;
  for (const auto& window : windows) {
    for (const int32_t id : window) {
      if (id < 0 || id >= spec_.vocabulary) {
        fail("Token id {} is outside the model's vocabulary of {}; tokenizer and model do not belong together.", id,
             spec_.vocabulary);
      }
    }
    out.batch.tokens.insert(out.batch.tokens.end(), window.begin(), window.end());
    out.batch.offsets.push_back(out.batch.rows());
    lengths.push_back(static_cast<int64_t>(window.size()));
    if (spec_.positions && lengths.back() + spec_.position_offset > spec_.positions->matrix.rows) {
      fail("A window of {} tokens is longer than the model's table of {} positions; give a smaller context.",
           lengths.back(), spec_.positions->matrix.rows - spec_.position_offset);
    }
  }
  constants_->tables.resize(spec_.ropes.size());
  for (size_t i = 0; i < spec_.ropes.size(); ++i) {
    out.ropes.push_back(make_tables(backend_, spec_.ropes[i], lengths, compute_, constants_->tables[i]));
  }
  return out;
}

Tensor ForwardPass::embed(const MicroBatch& batch) const {
  Tensor hidden = backend_.empty(compute_, batch.batch.rows(), spec_.hidden);
  const float multiplier =
      compute_ == DType::bf16 ? to_float(to_bfloat16(spec_.embedding_multiplier)) : spec_.embedding_multiplier;
  backend_.embed(batch.batch, spec_.embedding.matrix, multiplier, spec_.positions ? &spec_.positions->matrix : nullptr,
                 spec_.position_offset, hidden);
  return hidden;
}

Operand ForwardPass::head_operand(const Tensor& hidden, std::span<const int32_t> rows,
                                  std::span<const int64_t> window_offsets, const StepLinear& head) const {
  Tensor selected = backend_.gather(hidden, rows);
  Operand operand{.type = backend_.operand_type(head.product.activations, *head.weight, compute_),
                  .values = {},
                  .row_scales = {},
                  .outliers = {}};
  if (head.product.arithmetic == Arithmetic::bf16_rounded) {
    if (spec_.final_norm)
      backend_.norm(selected, constants_->norm(*spec_.final_norm, head.product.arithmetic), selected);
    backend_.round_to_bf16(selected);
    backend_.operands(selected, window_offsets, {&operand, 1});
  } else if (spec_.final_norm) {
    backend_.norm(selected, constants_->norm(*spec_.final_norm, head.product.arithmetic), window_offsets,
                  {&operand, 1});
  } else {
    backend_.operands(selected, window_offsets, {&operand, 1});
  }
  return operand;
}

HeadJob ForwardPass::head_job(const Operand& operand, const StepLinear& head) const {
  return {.hidden = &operand,
          .weight = head.weight.get(),
          .bias = constants_->bias(spec_.lm_head),
          .logit_multiplier = spec_.logit_multiplier,
          .logit_softcap = spec_.logit_softcap,
          .arithmetic = head.product.arithmetic};
}

}  // namespace mxlm
