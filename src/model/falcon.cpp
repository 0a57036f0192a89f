#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_falcon(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config,
                                 {.layers = config.has("num_hidden_layers") ? "num_hidden_layers" : "n_layer",
                                  .heads = config.has("num_attention_heads") ? "num_attention_heads" : "n_head",
                                  .kv_heads = nullptr},
                                 spec);
  if (config.boolean_or("new_decoder_architecture", false) || config.boolean_or("alibi", false)) {
    fail("'{}': falcon with the newer decoder (40B, 180B) or with ALiBi (RW) is not supported.", config.name());
  }
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5));
  const bool bias = config.boolean_or("bias", false);
  const bool multi_query = config.boolean_or("multi_query", true);
  const bool parallel = config.boolean_or("parallel_attn", true);
  const Activation activation = read_activation(config, "activation", "gelu");
  const int64_t intermediate = read_width_or(config, "ffn_hidden_size", 4 * spec.hidden);
  if (multi_query) spec.kv_heads = 1;
  const int64_t kv_width = int64_t{spec.kv_heads} * spec.head_dim;
  read_embedding(reader, "transformer.word_embeddings.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("transformer.h.{}.", i);
    LayerSpec layer;
    layer.parallel = parallel;
    layer.attention.layout = multi_query ? QkvLayout::blocks : QkvLayout::by_head;
    layer.attention.qkv.push_back(reader.linear(at + "self_attention.query_key_value", Role::attention,
                                                spec.hidden + 2 * kv_width, spec.hidden, bias));
    layer.attention.o = reader.linear(at + "self_attention.dense", Role::attention, spec.hidden, spec.hidden, bias);
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, true);
    layer.attention.rope = 0;
    layer.attention.scale = default_scale(spec);
    layer.mlp =
        plain_mlp(reader, spec, at + "mlp.dense_h_to_4h", at + "mlp.dense_4h_to_h", intermediate, bias, activation);
    if (!parallel) layer.mlp.norm = reader.layer_norm(at + "post_attention_layernorm", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("transformer.ln_f", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
