#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {
namespace {

/// LayerNorms over each head, without bias, with a weight tensor for each head.
NormSpec head_norms(const SpecReader& reader, const std::string& at, int64_t heads, int64_t head_dim) {
  NormSpec norm;
  norm.kind = NormKind::layer;
  norm.round_before_weight = false;
  norm.group = head_dim;
  std::vector<const std::byte*> rows;
  for (int64_t h = 0; h < heads; ++h) {
    norm.weight = reader.matrix(fmt::format("{}{}.weight", at, h), 1, head_dim);
    rows.push_back(norm.weight->matrix.data);
  }
  norm.weight->matrix.cols = norm.weight->matrix.stride = heads * head_dim;
  norm.weight->row_data = std::move(rows);
  return norm;
}

}  // namespace

ModelSpec read_stablelm(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, rotary_dim(config, spec.head_dim), spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("layer_norm_eps"));
  const bool bias = config.boolean("use_qkv_bias");
  const bool parallel = config.boolean("use_parallel_residual");
  const bool qk_norm = config.boolean("qk_layernorm");
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.parallel = parallel;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, false);
    layer.attention.norm = reader.layer_norm(at + "input_layernorm", spec.hidden, epsilon, true);
    if (qk_norm) {
      layer.attention.q_norm = head_norms(reader, at + "self_attn.q_layernorm.norms.", spec.heads, spec.head_dim);
      layer.attention.k_norm = head_norms(reader, at + "self_attn.k_layernorm.norms.", spec.kv_heads, spec.head_dim);
      layer.attention.q_norm->epsilon = layer.attention.k_norm->epsilon = epsilon;
    }
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    if (!parallel) layer.mlp.norm = reader.layer_norm(at + "post_attention_layernorm", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("model.norm", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", false, false, spec);
  return spec;
}

}  // namespace mxlm
