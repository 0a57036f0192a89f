#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_gpt2(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config,
                                 {.hidden = "n_embd",
                                  .layers = "n_layer",
                                  .heads = "n_head",
                                  .kv_heads = nullptr,
                                  .max_positions = "n_positions",
                                  .head_dim = nullptr},
                                 spec);
  const auto epsilon = static_cast<float>(config.number("layer_norm_epsilon"));
  const Activation activation = read_activation(config, "activation_function");
  const int64_t intermediate = read_width_or(config, "n_inner", 4 * spec.hidden);
  const bool scaled = config.boolean("scale_attn_weights");
  const bool by_layer = config.boolean("scale_attn_by_inverse_layer_idx");
  read_embedding(reader, "transformer.wte.weight", spec);
  spec.positions = reader.matrix("transformer.wpe.weight", spec.max_positions, spec.hidden);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("transformer.h.{}.", i);
    LayerSpec layer;
    layer.attention.layout = QkvLayout::blocks;
    layer.attention.qkv.push_back(
        reader.linear(at + "attn.c_attn", Role::attention, 3 * spec.hidden, spec.hidden, true, /*transposed=*/true));
    layer.attention.o = reader.linear(at + "attn.c_proj", Role::attention, spec.hidden, spec.hidden, true, true);
    layer.attention.norm = reader.layer_norm(at + "ln_1", spec.hidden, epsilon, true);
    layer.attention.scale = (scaled ? default_scale(spec) : 1) / (by_layer ? static_cast<float>(i + 1) : 1);
    layer.mlp = plain_mlp(reader, spec, at + "mlp.c_fc", at + "mlp.c_proj", intermediate, true, activation, true);
    layer.mlp.norm = reader.layer_norm(at + "ln_2", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("transformer.ln_f", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
