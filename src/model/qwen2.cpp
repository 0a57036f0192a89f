#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_qwen2(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const std::vector<int64_t> windows =
      qwen_windows(config, sizes.layers, config.integer("max_window_layers", 0, int64_t{1} << 31));
  const auto read_layer = [&](const std::string& at, size_t i) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", true, false);
    layer.attention.sliding_window = windows[i];
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, false, read_layer, spec);
  return spec;
}

}  // namespace mxlm
