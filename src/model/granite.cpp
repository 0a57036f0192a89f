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
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const bool bias = config.boolean("attention_bias");
  const bool mlp_bias = config.boolean("mlp_bias");
  spec.embedding_multiplier = static_cast<float>(config.number("embedding_multiplier"));
  spec.residual_multiplier = static_cast<float>(config.number("residual_multiplier"));
  const auto scale = static_cast<float>(config.number("attention_multiplier"));
  const double divisor = config.number("logits_scaling");
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
