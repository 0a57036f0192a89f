#include <fmt/format.h>

#include <algorithm>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_qwen2(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions));
  const auto epsilon = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  const Activation activation = read_activation(config, "hidden_act", "silu");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const bool sliding = config.boolean_or("use_sliding_window", false);
  const int64_t window = sliding ? config.integer_or("sliding_window", 4096, 0, int64_t{1} << 31) : 0;
  const int64_t first = config.integer_or("max_window_layers", 28, 0, int64_t{1} << 31);
  std::vector<int64_t> windows = layer_windows(config, sizes.layers, window, [](int64_t) { return true; });
  if (!config.has("layer_types")) std::fill_n(windows.begin(), std::min(first, sizes.layers), 0);
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", true, false);
    layer.attention.window = windows[static_cast<size_t>(i)];
    layer.attention.norm = reader.rms_norm(at + "input_layernorm", spec.hidden, epsilon);
    layer.mlp = gated_mlp(reader, spec, at + "mlp.", intermediate, false, activation);
    layer.mlp.norm = reader.rms_norm(at + "post_attention_layernorm", spec.hidden, epsilon);

    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.rms_norm("model.norm", spec.hidden, epsilon);
  read_head(reader, "lm_head", false, false, spec);

  return spec;
}

}  // namespace mxlm
