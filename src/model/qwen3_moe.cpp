#include <fmt/format.h>

#include <algorithm>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_qwen3_moe(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  const Activation activation = read_activation(config, "hidden_act", "silu");

  const bool sliding = config.boolean_or("use_sliding_window", false);
  const int64_t window = sliding ? config.integer_or("sliding_window", 4096, 0, int64_t{1} << 31) : 0;
  const std::vector<int64_t> windows = layer_windows(config, sizes.layers, window, [](int64_t) { return true; });
  const bool bias = config.boolean_or("attention_bias", false);
  const int64_t expert_width = read_width(config, "moe_intermediate_size");
  const char* count_key = config.has("num_experts") ? "num_experts" : "num_local_experts";
  const int64_t experts = config.integer_or(count_key, 128, 1, 1 << 16);
  const int64_t step = config.integer_or("decoder_sparse_step", 1, 1, 1 << 20);
  const std::vector<double> dense = config.numbers("mlp_only_layers");
  RouteArgs route;
  route.top_k = static_cast<int>(config.integer_or("num_experts_per_tok", 8, 1, experts));
  route.normalise = config.boolean_or("norm_topk_prob", false);
  route.round_weights = true;
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.window = windows[static_cast<size_t>(i)];
    layer.attention.q_norm = reader.rms_norm(at + "self_attn.q_norm", spec.head_dim, epsilon);
    layer.attention.k_norm = reader.rms_norm(at + "self_attn.k_norm", spec.head_dim, epsilon);
    layer.attention.q_norm->group = layer.attention.k_norm->group = spec.head_dim;
    layer.attention.norm = reader.rms_norm(at + "input_layernorm", spec.hidden, epsilon);
    const bool mixture = (i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end();
    if (mixture) {
      layer.mlp.activation.activation = activation;
      layer.mlp.route = route;
      layer.mlp.router = reader.linear(at + "mlp.gate", Role::router, experts, spec.hidden, false);
      for (int64_t e = 0; e < experts; ++e) {
        MlpSpec expert =
            gated_mlp(reader, spec, fmt::format("{}mlp.experts.{}.", at, e), expert_width, false, activation);
        layer.mlp.experts.push_back({.in = std::move(expert.in), .out = std::move(expert.out)});
      }
    } else {
      layer.mlp = gated_mlp(reader, spec, at + "mlp.", read_width(config, "intermediate_size"), false, activation);
    }
    layer.mlp.norm = reader.rms_norm(at + "post_attention_layernorm", spec.hidden, epsilon);

    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.rms_norm("model.norm", spec.hidden, epsilon);
  read_head(reader, "lm_head", false, false, spec);

  return spec;
}

}  // namespace mxlm
