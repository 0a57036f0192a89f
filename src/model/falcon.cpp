#include <fmt/format.h>

#include <cstring>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {
namespace {

/// Puts all queries first, then the keys, then the values. The newer decoder's projection holds, for each key/value
/// head, its query heads, the key and the value.
void ungroup(const ModelSpec& spec, LinearSpec& qkv) {
  const int64_t group = spec.heads / spec.kv_heads;
  std::vector<int64_t> order;  // of rows
  const auto add_head = [&](int64_t head) {
    for (int64_t r = head * spec.head_dim; r < (head + 1) * spec.head_dim; ++r) order.push_back(r);
  };
  for (int64_t h = 0; h < spec.heads; ++h) add_head(h / group * (group + 2) + h % group);
  for (int64_t kv = 0; kv < spec.kv_heads; ++kv) add_head(kv * (group + 2) + group);
  for (int64_t kv = 0; kv < spec.kv_heads; ++kv) add_head(kv * (group + 2) + group + 1);
  const auto reorder = [&](WeightSource& source, int64_t values_a_row) {
    const size_t row_bytes = static_cast<size_t>(values_a_row) * dtype_size(source.matrix.type);
    if (source.decode) {
      source.decode = [decode = source.decode, order, row_bytes](std::byte* out) {
        std::vector<std::byte> values(order.size() * row_bytes);
        decode(values.data());
        for (const int64_t row : order) {
          std::memcpy(out, values.data() + static_cast<size_t>(row) * row_bytes, row_bytes);
          out += row_bytes;
        }
      };
      return;
    }
    source.row_data.reserve(order.size());
    for (const int64_t row : order) {
      source.row_data.push_back(source.matrix.data + static_cast<size_t>(row) * row_bytes);
    }
  };
  reorder(qkv.weight, spec.hidden);
  if (qkv.bias) reorder(*qkv.bias, 1);
}

}  // namespace

ModelSpec read_falcon(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config,
                                 {.layers = config.has("num_hidden_layers") ? "num_hidden_layers" : "n_layer",
                                  .heads = config.has("num_attention_heads") ? "num_attention_heads" : "n_head",
                                  .kv_heads = nullptr,
                                  .head_dim = nullptr},
                                 spec);
  const bool grouped = config.boolean("new_decoder_architecture");  // 40B, 180B
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("layer_norm_epsilon"));
  const bool bias = config.boolean("bias");
  const bool multi_query = config.boolean("multi_query");
  const bool parallel = config.boolean("parallel_attn");
  const Activation activation = read_activation(config, "activation");
  const int64_t intermediate = read_width_or(config, "ffn_hidden_size", 4 * spec.hidden);
  if (grouped) {
    spec.kv_heads = static_cast<int>(config.integer_or("num_kv_heads", spec.heads, 1, spec.heads));
    if (spec.heads % spec.kv_heads != 0) {
      fail("'{}': {} attention heads cannot share {} key/value heads evenly.", config.name(), spec.heads,
           spec.kv_heads);
    }
  } else if (multi_query) {
    spec.kv_heads = 1;
  }
  const bool two_norms = grouped && config.integer_or("num_ln_in_parallel_attn", 2, 1, 2) == 2;
  const int64_t kv_width = int64_t{spec.kv_heads} * spec.head_dim;
  read_embedding(reader, "transformer.word_embeddings.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("transformer.h.{}.", i);
    LayerSpec layer;
    layer.parallel = parallel || grouped;
    layer.attention.layout = grouped || multi_query ? QkvLayout::blocks : QkvLayout::by_head;
    layer.attention.qkv.push_back(reader.linear(at + "self_attention.query_key_value", Role::attention,
                                                spec.hidden + 2 * kv_width, spec.hidden, bias));
    if (grouped) ungroup(spec, layer.attention.qkv[0]);
    layer.attention.o = reader.linear(at + "self_attention.dense", Role::attention, spec.hidden, spec.hidden, bias);
    layer.attention.norm =
        reader.layer_norm(at + (two_norms ? "ln_attn" : "input_layernorm"), spec.hidden, epsilon, true);
    layer.attention.rope = 0;
    layer.attention.scale = default_scale(spec);
    layer.mlp =
        plain_mlp(reader, spec, at + "mlp.dense_h_to_4h", at + "mlp.dense_4h_to_h", intermediate, bias, activation);
    if (two_norms || !layer.parallel) {
      layer.mlp.norm =
          reader.layer_norm(at + (two_norms ? "ln_mlp" : "post_attention_layernorm"), spec.hidden, epsilon, true);
    }
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("transformer.ln_f", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
