#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_cohere(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions, 500000));
  spec.ropes.back().interleaved = true;
  const auto epsilon = static_cast<float>(config.number("layer_norm_eps"));
  const bool bias = config.boolean("attention_bias");
  const bool qk_norm = config.boolean("use_qk_norm");
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  spec.logit_multiplier = static_cast<float>(config.number("logit_scale"));
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.parallel = true;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, false);
    layer.attention.norm->by_operators = true;
    if (qk_norm) {
      // Each head has its own weights.
      const auto norm = [&](const char* name, int64_t heads) {
        NormSpec out;
        out.kind = NormKind::layer;
        out.weight = reader.matrix(at + name, heads, spec.head_dim);
        out.weight->matrix.rows = 1;
        out.weight->matrix.cols = out.weight->matrix.stride = heads * spec.head_dim;
        out.epsilon = epsilon;
        out.round_before_weight = false;
        out.group = spec.head_dim;
        out.by_operators = true;
        return out;
      };
      layer.attention.q_norm = norm("self_attn.q_norm.weight", spec.heads);
      layer.attention.k_norm = norm("self_attn.k_norm.weight", spec.kv_heads);
    }
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("model.norm", spec.hidden, epsilon, false);
  spec.final_norm->by_operators = true;
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
