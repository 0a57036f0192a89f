#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_mistral(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  // Every layer has the window, if there is one.
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  // transformers takes Ministral's class if layer_types exists; otherwise every layer has the window.
  const std::vector<int64_t> windows = layer_windows(config, sizes.layers, window, [](int64_t) { return true; });
  const auto read_layer = [&](const std::string& at, size_t i) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", false, false);
    layer.attention.sliding_window = windows[i];
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, false, read_layer, spec);
  return spec;
}

}  // namespace mxlm
