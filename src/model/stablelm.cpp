#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_stablelm(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  // The older name of partial_rotary_factor is rope_pct.
  spec.ropes.push_back(
      parse_rope(config, rotary_dim(config, spec.head_dim, config.number_or("rope_pct", 0.25)), spec.max_positions));
  const auto epsilon = static_cast<float>(config.number_or("layer_norm_eps", config.number_or("norm_eps", 1e-5)));
  const bool bias = config.boolean_or("use_qkv_bias", false);
  const bool parallel = config.boolean_or("use_parallel_residual", false);
  if (config.boolean_or("qk_layernorm", false)) {
    fail("'{}': stablelm with qk_layernorm (StableLM 2 12B) is not supported.", config.name());
  }
  const Activation activation = read_activation(config, "hidden_act", "silu");
  const int64_t intermediate = read_width(config, "intermediate_size");
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.parallel = parallel;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, false);
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, true);
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    if (!parallel) layer.mlp.norm = reader.layer_norm(at + "post_attention_layernorm", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("model.norm", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", false, false, spec);
  return spec;
}

}  // namespace mxlm
