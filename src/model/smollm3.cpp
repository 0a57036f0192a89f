#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_smollm3(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions, 2000000));
  const auto epsilon = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  const Activation activation = read_activation(config, "hidden_act", "silu");
  const int64_t intermediate = read_width(config, "intermediate_size");
  // no_rope_layers[i] = 1 means that layer i does use rotary positions.
  std::vector<double> rotates = config.numbers("no_rope_layers");
  const int64_t interval = config.integer_or("no_rope_layer_interval", 4, 1, 1 << 20);
  for (int64_t i = static_cast<int64_t>(rotates.size()); i < sizes.layers; ++i) {
    rotates.push_back((i + 1) % interval != 0 ? 1 : 0);
  }
  const bool sliding = config.boolean_or("use_sliding_window", false);
  const int64_t window = sliding ? config.integer_or("sliding_window", 0, 0, int64_t{1} << 31) : 0;
  std::vector<int64_t> windows = layer_windows(config, sizes.layers, window, [](int64_t) { return true; });
  for (size_t i = 0; !config.has("layer_types") && i < windows.size(); ++i) {
    if (rotates[i] != 0) windows[i] = 0;
  }
  const bool bias = config.boolean_or("attention_bias", false);
  const bool mlp_bias = config.boolean_or("mlp_bias", false);
  const auto read_layer = [&](const std::string& at, size_t i) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.window = windows[i];
    if (rotates[i] == 0) layer.attention.rope = -1;
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, mlp_bias, activation);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, true, read_layer, spec);
  return spec;
}

}  // namespace mxlm
