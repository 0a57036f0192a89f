#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_phi3(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, rotary_dim(config, spec.head_dim), spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  const auto read_layer = [&](const std::string& at, size_t /*i*/) {
    LayerSpec layer;
    layer.attention.layout = QkvLayout::blocks;
    layer.attention.qkv.push_back(reader.linear(at + "self_attn.qkv_proj", Role::attention,
                                                sizes.q_width + 2 * sizes.kv_width, spec.hidden, false));
    layer.attention.o = reader.linear(at + "self_attn.o_proj", Role::attention, spec.hidden, sizes.q_width, false);
    layer.attention.rope = 0;
    layer.attention.scale = default_scale(spec);
    layer.attention.sliding_window = window;
    layer.mlp.kind = MlpSpec::Kind::gated_fused;
    layer.mlp.activation.activation = activation;
    layer.mlp.in.push_back(reader.linear(at + "mlp.gate_up_proj", Role::mlp, 2 * intermediate, spec.hidden, false));
    layer.mlp.out = reader.linear(at + "mlp.down_proj", Role::mlp, spec.hidden, intermediate, false);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, false, read_layer, spec);
  return spec;
}

}  // namespace mxlm
