#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_opt(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {.kv_heads = nullptr, .head_dim = nullptr}, spec);
  if (!config.boolean("do_layer_norm_before") ||
      config.integer_or("word_embed_proj_dim", spec.hidden, 1, 1 << 20) != spec.hidden ||
      !config.boolean("layer_norm_elementwise_affine")) {
    fail("'{}': opt with norms after the layers, or embeddings of another width (as OPT-350M), is not supported.",
         config.name());
  }
  const bool bias = config.boolean("enable_bias");
  const Activation activation = read_activation(config, "activation_function");
  const int64_t intermediate = read_width(config, "ffn_dim");
  constexpr float kEpsilon = 1e-5F;
  const std::string root = "model.decoder.";
  read_embedding(reader, root + "embed_tokens.weight", spec);
  spec.position_offset = 2;
  spec.positions =
      reader.matrix(root + "embed_positions.weight", spec.max_positions + spec.position_offset, spec.hidden);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("{}layers.{}.", root, i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias, "out_proj");
    layer.attention.norm = reader.layer_norm(at + "self_attn_layer_norm", spec.hidden, kEpsilon, true);
    layer.mlp = plain_mlp(reader, spec, at + "fc1", at + "fc2", intermediate, bias, activation);
    layer.mlp.norm = reader.layer_norm(at + "final_layer_norm", spec.hidden, kEpsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  if (!config.boolean("_remove_final_layer_norm")) {
    spec.final_norm = reader.layer_norm(root + "final_layer_norm", spec.hidden, kEpsilon, true);
  }
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
