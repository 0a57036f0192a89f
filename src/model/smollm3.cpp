#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_smollm3(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions, 2000000));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  // no_rope_layers[i] = 1 means that layer i uses rotary positions.
  std::vector<double> rotates = config.numbers("no_rope_layers");
  const int64_t interval = config.integer("no_rope_layer_interval", 1, 1 << 20);
  for (int64_t i = static_cast<int64_t>(rotates.size()); i < sizes.layers; ++i) {
    rotates.push_back((i + 1) % interval != 0 ? 1 : 0);
  }
  const bool sliding = config.boolean("use_sliding_window");
  const int64_t window = sliding ? config.integer_or("sliding_window", 0, 1, int64_t{1} << 31) : 0;
  std::vector<int64_t> windows = layer_windows(config, sizes.layers, window, [](int64_t) { return true; });
  for (size_t i = 0; !config.has("layer_types") && i < windows.size(); ++i) {
    if (rotates[i] != 0) windows[i] = 0;
  }
  const bool bias = config.boolean("attention_bias");
  const bool mlp_bias = config.boolean("mlp_bias");
  const auto read_layer = [&](const std::string& at, size_t i) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.sliding_window = windows[i];
    if (rotates[i] == 0) layer.attention.rope = -1;
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, mlp_bias, activation);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, true, read_layer, spec);
  return spec;
}

}  // namespace mxlm
