#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

namespace {

/// The ALiBi slopes of transformers' build_mpt_alibi_tensor: 2^(-8i/n) for i = 1 to n, where n is the next power of
/// two. With fewer heads, the slopes of even i come first, then those of odd i.
std::vector<float> alibi_slopes(int heads) {
  const auto n = static_cast<int>(std::bit_ceil(static_cast<unsigned>(heads)));
  const auto slope = [n](int i) { return static_cast<float>(std::exp2(-8.0 * i / n)); };
  std::vector<float> slopes;
  if (n != heads) {
    for (int i = 2; i <= n; i += 2) slopes.push_back(slope(i));
    for (int i = 1; i <= n; i += 2) slopes.push_back(slope(i));
  } else {
    for (int i = 1; i <= n; ++i) slopes.push_back(slope(i));
  }
  slopes.resize(static_cast<size_t>(heads));
  return slopes;
}

}  // namespace

ModelSpec read_mpt(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config,
                                 {.hidden = "d_model",
                                  .layers = "n_layers",
                                  .heads = "n_heads",
                                  .kv_heads = nullptr,
                                  .max_positions = "max_seq_len",
                                  .head_dim = nullptr},
                                 spec);
  spec.alibi_slopes = alibi_slopes(spec.heads);
  const auto epsilon = static_cast<float>(config.number("layer_norm_epsilon"));
  const auto attention_config = config.object("attn_config");
  float scale = default_scale(spec);
  double clip = 0;
  if (attention_config) {
    scale = static_cast<float>(attention_config->number_or("softmax_scale", scale));
    clip = attention_config->number_or("clip_qkv", 0);
  }
  if (!(scale > 0) || clip < 0) fail("'{}': softmax_scale and clip_qkv should be positive.", config.name());
  read_embedding(reader, "transformer.wte.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("transformer.blocks.{}.", i);
    LayerSpec layer;
    layer.attention.layout = QkvLayout::blocks;
    layer.attention.qkv.push_back(
        reader.linear(at + "attn.Wqkv", Role::attention, 3 * spec.hidden, spec.hidden, false));
    layer.attention.o = reader.linear(at + "attn.out_proj", Role::attention, spec.hidden, spec.hidden, false);
    layer.attention.norm = reader.layer_norm(at + "norm_1", spec.hidden, epsilon, false);
    layer.attention.scale = scale;
    layer.attention.clip = static_cast<float>(clip);
    // transformers takes four times the width, whatever expansion_ratio says.
    layer.mlp =
        plain_mlp(reader, spec, at + "ffn.up_proj", at + "ffn.down_proj", 4 * spec.hidden, false, Activation::gelu_erf);
    layer.mlp.norm = reader.layer_norm(at + "norm_2", spec.hidden, epsilon, false);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("transformer.norm_f", spec.hidden, epsilon, false);
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
