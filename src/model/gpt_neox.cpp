#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_gpt_neox(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {.kv_heads = nullptr, .head_dim = nullptr}, spec);
  // head_dim changes how many dimensions rotate, and no other size, as in transformers.
  const int64_t rotated = rotary_dim(config, config.integer_or("head_dim", spec.head_dim, 1, 1 << 20), "rotary_pct");
  if (rotated > spec.head_dim) {
    fail("'{}': head_dim and rotary_pct rotate {} dimensions of heads that have {}.", config.name(), rotated,
         spec.head_dim);
  }
  spec.ropes.push_back(parse_rope(config, rotated, spec.max_positions, config.number("rotary_emb_base"),
                                  RopeKeys{rope_parameters(config)}));
  const auto epsilon = static_cast<float>(config.number("layer_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const bool parallel = config.boolean("use_parallel_residual");
  const bool bias = config.boolean("attention_bias");
  read_embedding(reader, "gpt_neox.embed_in.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("gpt_neox.layers.{}.", i);
    LayerSpec layer;
    layer.parallel = parallel;
    layer.attention.layout = QkvLayout::by_head;
    layer.attention.qkv.push_back(
        reader.linear(at + "attention.query_key_value", Role::attention, 3 * spec.hidden, spec.hidden, bias));
    layer.attention.o = reader.linear(at + "attention.dense", Role::attention, spec.hidden, spec.hidden, bias);
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, true);
    layer.attention.rope = 0;
    layer.attention.scale = default_scale(spec);
    layer.mlp =
        plain_mlp(reader, spec, at + "mlp.dense_h_to_4h", at + "mlp.dense_4h_to_h", intermediate, true, activation);
    layer.mlp.norm = reader.layer_norm(at + "post_attention_layernorm", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("gpt_neox.final_layer_norm", spec.hidden, epsilon, true);
  read_head(reader, "embed_out", false, false, spec);
  return spec;
}

}  // namespace mxlm
