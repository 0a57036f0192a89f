#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

ModelSpec read_gpt_oss(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {}, spec);
  spec.ropes.push_back(parse_rope(config, spec.head_dim, spec.max_positions, 150000));
  const auto epsilon = static_cast<float>(config.number("rms_norm_eps"));
  const bool bias = config.boolean("attention_bias");
  const int64_t intermediate = read_width(config, "intermediate_size");
  const int64_t experts = config.integer("num_local_experts", 1, 1 << 16);
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  const auto windows = layer_windows(config, sizes.layers, window, [](int64_t i) { return i % 2 == 0; });
  RoutingArgs routing;
  routing.top_k = static_cast<int>(config.integer("num_experts_per_tok", 1, experts));
  routing.score = RoutingArgs::Score::softmax_chosen;
  routing.round_weights = true;
  // The weight is multiplied in float32.
  const auto norm = [&](const std::string& name) {
    NormSpec out = reader.rms_norm(name, spec.hidden, epsilon);
    out.round_before_weight = false;
    return out;
  };
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "self_attn.", bias, bias);
    layer.attention.norm = norm(at + "input_layernorm");
    layer.attention.sliding_window = windows[static_cast<size_t>(i)];
    layer.attention.sinks = reader.matrix(at + "self_attn.sinks", 1, spec.heads);
    layer.mlp.norm = norm(at + "post_attention_layernorm");
    layer.mlp.kind = MlpSpec::Kind::gated_fused;
    layer.mlp.activation = {.activation = Activation::swiglu_oai,
                            .interleaved = true,
                            .limit = static_cast<float>(config.number("swiglu_limit"))};
    layer.mlp.routing = routing;
    layer.mlp.router = reader.linear(at + "mlp.router", Role::router, experts, spec.hidden, true);
    for (int64_t e = 0; e < experts; ++e) {
      // One tensor holds all experts, [experts, inputs, outputs] (in codes, [experts, outputs, inputs]); gate and up
      // are its even and odd outputs.
      const auto linear = [&](const char* name, int64_t outputs, int64_t inputs) {
        const std::string tensor = fmt::format("{}mlp.experts.{}", at, name);
        LinearSpec out;
        out.module = fmt::format("{}mlp.experts.{}.{}", at, e, name);
        out.role = Role::mlp;
        auto packed = reader.packed_part(tensor, experts, e, outputs, inputs);
        out.weight =
            packed ? *std::move(packed) : reader.part(tensor, experts, e, outputs, inputs, /*transposed=*/true);
        out.bias = reader.row(tensor + "_bias", experts, e, outputs);
        return out;
      };
      ExpertSpec& expert = layer.mlp.experts.emplace_back();
      expert.in.push_back(linear("gate_up_proj", 2 * intermediate, spec.hidden));
      expert.out = linear("down_proj", spec.hidden, intermediate);
    }
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = norm("model.norm");
  read_head(reader, "lm_head", false, false, spec);
  return spec;
}

}  // namespace mxlm
