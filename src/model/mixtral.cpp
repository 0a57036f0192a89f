#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_mixtral(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions, 1000000));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  const int64_t experts = config.integer("num_local_experts", 1, 1 << 16);
  RoutingArgs routing;
  routing.top_k = static_cast<int>(config.integer("num_experts_per_tok", 1, experts));
  routing.normalise = true;
  const auto read_layer = [&](const std::string& at, size_t /*i*/) {
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", false, false);
    layer.attention.sliding_window = window;
    // transformers 5 writes the tensors as "block_sparse_moe." unless its caller asks for its own names.
    const std::string moe = at + (reader.has(at + "mlp.gate.weight") ? "mlp." : "block_sparse_moe.");
    layer.mlp.activation.activation = activation;
    layer.mlp.routing = routing;
    layer.mlp.router = reader.linear(moe + "gate", Role::router, experts, spec.hidden, false);
    read_experts(reader, spec, moe + "experts.", experts, intermediate, {"w1", "w3", "w2"}, layer.mlp);
    return layer;
  };
  read_llama_layout(reader, sizes.layers, epsilon, false, read_layer, spec);
  return spec;
}

}  // namespace mxlm
