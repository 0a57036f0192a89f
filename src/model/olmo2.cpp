#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_olmo2(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  spec.ropes.back().float32_tables = true;
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const bool bias = config.boolean("attention_bias");
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  // The weight is multiplied in float32.
  const auto norm = [&](const std::string& name, int64_t width) {
    NormSpec out = reader.rms_norm(name, width, epsilon);
    out.round_before_weight = false;
    return out;
  };
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.q_norm = norm(at + "self_attn.q_norm", sizes.q_width);
    layer.attention.k_norm = norm(at + "self_attn.k_norm", sizes.kv_width);
    layer.attention.post_norm = norm(at + "post_attention_layernorm", spec.hidden);
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    layer.mlp.post_norm = norm(at + "post_feedforward_layernorm", spec.hidden);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = norm("model.norm", spec.hidden);
  read_head(reader, "lm_head", false, false, spec);
  return spec;
}

}  // namespace mxlm
