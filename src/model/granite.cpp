#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_granite(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  const Activation activation = read_activation(config, "hidden_act", "silu");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const bool bias = config.boolean_or("attention_bias", false);
  const bool mlp_bias = config.boolean_or("mlp_bias", false);
  spec.embedding_multiplier = static_cast<float>(config.number_or("embedding_multiplier", 1));
  spec.residual_multiplier = static_cast<float>(config.number_or("residual_multiplier", 1));
  const auto scale = static_cast<float>(config.number_or("attention_multiplier", 1));
  const double divisor = config.number_or("logits_scaling", 1);
  if (!(scale > 0) || !(divisor > 0)) fail("'{}': the multipliers of granite should be positive.", config.name());
  spec.logit_multiplier = static_cast<float>(1 / divisor);
  const auto read_layer = [&](const std::string& at, size_t /*i*/) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.scale = scale;
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, mlp_bias, activation);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, false, read_layer, spec);
  return spec;
}

}  // namespace mxlm
