#include <algorithm>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_qwen3_moe(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");

  // Every layer has the window, whatever layer_types says.
  const int64_t window =
      config.boolean("use_sliding_window") ? config.integer_or("sliding_window", 0, 1, int64_t{1} << 31) : 0;
  const bool bias = config.boolean("attention_bias");
  const int64_t expert_width = read_width(config, "moe_intermediate_size");
  const int64_t experts = config.integer("num_experts", 1, 1 << 16);
  const int64_t step = config.integer("decoder_sparse_step", 1, 1 << 20);
  const std::vector<double> dense = config.numbers("mlp_only_layers");
  RoutingArgs routing;
  routing.top_k = static_cast<int>(config.integer("num_experts_per_tok", 1, experts));
  routing.normalise = config.boolean("norm_topk_prob");
  routing.round_weights = true;
  const auto read_layer = [&](const std::string& at, size_t i) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.sliding_window = window;
    read_head_norms(reader, spec, at + "self_attn.", epsilon, layer.attention);
    const auto index = static_cast<int64_t>(i);
    const bool mixture = (index + 1) % step == 0 && std::find(dense.begin(), dense.end(), index) == dense.end();
    if (mixture) {
      layer.mlp.activation.activation = activation;
      layer.mlp.routing = routing;
      layer.mlp.router = reader.linear(at + "mlp.gate", Role::router, experts, spec.hidden, false);
      read_experts(reader, spec, at + "mlp.experts.", experts, expert_width, {"gate_proj", "up_proj", "down_proj"},
                   layer.mlp);
    } else {
      layer.mlp = gated_mlp(reader, spec, at + "mlp.", read_width(config, "intermediate_size"), false, activation);
    }
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, false, read_layer, spec);
  return spec;
}

}  // namespace mxlm
