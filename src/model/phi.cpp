#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_phi(const SpecReader& reader) {
  if (auto older = read_phi_msft(reader)) return *std::move(older);
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, rotary_dim(config, spec.head_dim), spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("layer_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width_or(config, "intermediate_size", 4 * spec.hidden);
  const bool qk_norm = config.boolean("qk_layernorm");
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.parallel = true;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", true, true, "dense");
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, true);
    if (qk_norm) {
      layer.attention.q_norm = reader.layer_norm(at + "self_attn.q_layernorm", spec.head_dim, epsilon, true);
      layer.attention.k_norm = reader.layer_norm(at + "self_attn.k_layernorm", spec.head_dim, epsilon, true);
      layer.attention.q_norm->group = layer.attention.k_norm->group = spec.head_dim;
    }
    layer.mlp = plain_mlp(reader, spec, at + "mlp.fc1", at + "mlp.fc2", intermediate, true, activation);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("model.final_layernorm", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", false, true, spec);
  return spec;
}

}  // namespace mxlm
