#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_olmo(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  NormSpec norm;  // without weight or bias
  norm.kind = NormKind::layer;
  norm.round_before_weight = false;
  const bool bias = config.boolean("attention_bias");
  const double clip = config.number_or("clip_qkv", 0);
  if (clip < 0) fail("'{}': clip_qkv should be positive.", config.name());
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.norm = norm;
    layer.attention.clip = static_cast<float>(clip);
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    layer.mlp.norm = norm;
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = norm;
  read_head(reader, "lm_head", false, false, spec);
  return spec;
}

}  // namespace mxlm
