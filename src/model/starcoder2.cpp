#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_starcoder2(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("norm_epsilon"));
  const bool bias = config.boolean("use_bias");
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, true);
    layer.attention.sliding_window = window;
    layer.mlp = plain_mlp(reader, spec, at + "mlp.c_fc", at + "mlp.c_proj", intermediate, bias, activation);
    layer.mlp.norm = reader.layer_norm(at + "post_attention_layernorm", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("model.norm", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
