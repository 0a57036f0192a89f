#include <fmt/format.h>

#include <cmath>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {
namespace {

/// Gemma multiplies by 1 + weight, in float32.
NormSpec gemma_norm(const SpecReader& reader, const std::string& name, int64_t width, float epsilon) {
  NormSpec norm = reader.rms_norm(name, width, epsilon);
  norm.weight_offset = 1;
  norm.round_before_weight = false;
  return norm;
}

/// The sizes and what all Gemmas have in common.
struct Gemma {
  ModelSpec spec;
  Sizes sizes;
  float epsilon;
  int64_t intermediate;
  Activation activation;
};

/// `activation` is the key that names the element-wise function.
Gemma begin_gemma(const SpecReader& reader, const char* activation) {
  const Config& config = reader.config();
  Gemma g;
  g.sizes = read_sizes(config, {}, g.spec);
  g.epsilon = static_cast<float>(config.number("rms_norm_eps"));
  g.intermediate = read_width(config, "intermediate_size");
  g.activation = read_activation(config, activation);
  g.spec.embedding_multiplier = static_cast<float>(std::sqrt(static_cast<double>(g.spec.hidden)));
  read_embedding(reader, "model.embed_tokens.weight", g.spec);
  return g;
}

/// A layer of Gemma 2 and 3: norms before and after both halves.
LayerSpec sandwich_layer(const SpecReader& reader, const Gemma& g, int64_t i) {
  const Config& config = reader.config();
  const std::string at = fmt::format("model.layers.{}.", i);
  const bool bias = config.boolean("attention_bias");
  const auto norm = [&](const char* name) { return gemma_norm(reader, at + name, g.spec.hidden, g.epsilon); };
  LayerSpec layer;
  layer.attention = separate_attention(reader, g.spec, at + "self_attn.", bias, bias);
  layer.attention.norm = norm("input_layernorm");
  layer.attention.post_norm = norm("post_attention_layernorm");
  const double query_scale = config.number("query_pre_attn_scalar");
  if (!(query_scale > 0)) fail("'{}': query_pre_attn_scalar should be positive.", config.name());
  layer.attention.scale = static_cast<float>(1 / std::sqrt(query_scale));
  layer.mlp = gated_mlp(reader, g.spec, at + "mlp.", g.intermediate, false, g.activation);
  layer.mlp.norm = norm("pre_feedforward_layernorm");
  layer.mlp.post_norm = norm("post_feedforward_layernorm");
  return layer;
}

/// A null means none.
float softcap(const Config& config, const char* key) {
  const double cap = config.number_or(key, 0);
  if (cap < 0) fail("'{}': {} should be positive.", config.name(), key);
  return static_cast<float>(cap);
}

ModelSpec finish_gemma(const SpecReader& reader, Gemma g) {
  g.spec.final_norm = gemma_norm(reader, "model.norm", g.spec.hidden, g.epsilon);
  read_head(reader, "lm_head", true, false, g.spec);
  return std::move(g.spec);
}

}  // namespace

ModelSpec read_gemma(const SpecReader& reader) {
  const Config& config = reader.config();
  Gemma g = begin_gemma(reader, "hidden_act");
  // Gemma 1's first configs say "gelu" and mean the tanh form.
  if (g.activation == Activation::gelu_erf) g.activation = Activation::gelu_tanh;
  const bool bias = config.boolean("attention_bias");
  g.spec.ropes.push_back(parse_rope(config, g.spec.head_dim, g.spec.max_positions));
  for (int64_t i = 0; i < g.sizes.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, g.spec, at + "self_attn.", bias, bias);
    layer.attention.norm = gemma_norm(reader, at + "input_layernorm", g.spec.hidden, g.epsilon);
    layer.mlp = gated_mlp(reader, g.spec, at + "mlp.", g.intermediate, false, g.activation);
    layer.mlp.norm = gemma_norm(reader, at + "post_attention_layernorm", g.spec.hidden, g.epsilon);
    g.spec.layers.push_back(std::move(layer));
  }
  return finish_gemma(reader, std::move(g));
}

ModelSpec read_gemma2(const SpecReader& reader) {
  const Config& config = reader.config();
  Gemma g = begin_gemma(reader, "hidden_activation");
  g.spec.ropes.push_back(parse_rope(config, g.spec.head_dim, g.spec.max_positions));
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  const auto windows = layer_windows(config, g.sizes.layers, window, [](int64_t i) { return i % 2 == 0; });
  for (int64_t i = 0; i < g.sizes.layers; ++i) {
    LayerSpec layer = sandwich_layer(reader, g, i);
    layer.attention.sliding_window = windows[static_cast<size_t>(i)];
    layer.attention.softcap = softcap(config, "attn_logit_softcapping");
    g.spec.layers.push_back(std::move(layer));
  }
  g.spec.logit_softcap = softcap(config, "final_logit_softcapping");
  return finish_gemma(reader, std::move(g));
}

ModelSpec read_gemma3(const SpecReader& reader) {
  const Config& config = reader.config();
  Gemma g = begin_gemma(reader, "hidden_activation");
  // Rotary positions of full-attention layers, then those of layers with a window.
  const auto parameters = config.object("rope_parameters");
  const auto of_layers = [&](const char* type) { return parameters ? parameters->object(type) : std::nullopt; };
  auto global = of_layers("full_attention");
  // The older key changes those of full-attention layers, whose type is "default" where there are none; so its `type`
  // alone names nothing.
  if (const auto scaling = config.object("rope_scaling")) {
    if (!parameters) global = Config::parse(R"({"rope_type": "default"})", config.name());
    if (global) global = Config::merge({*global, *scaling}, config.name());
  }
  const double global_theta = config.number_or("rope_theta", 1000000);
  const double local_theta = config.number("rope_local_base_freq");
  g.spec.ropes.push_back(parse_rope(config, g.spec.head_dim, g.spec.max_positions, global_theta, RopeKeys{global}));
  g.spec.ropes.push_back(
      parse_rope(config, g.spec.head_dim, g.spec.max_positions, local_theta, RopeKeys{of_layers("sliding_attention")}));
  const int64_t window = config.integer_or("sliding_window", 0, 1, int64_t{1} << 31);
  std::vector<int64_t> windows = layer_windows(config, g.sizes.layers, window, [](int64_t) { return true; });
  if (!config.has("layer_types")) {
    const int64_t pattern = config.integer("sliding_window_pattern", 1, 1 << 20);
    for (int64_t i = pattern - 1; i < g.sizes.layers; i += pattern) windows[static_cast<size_t>(i)] = 0;
  }
  for (int64_t i = 0; i < g.sizes.layers; ++i) {
    LayerSpec layer = sandwich_layer(reader, g, i);
    const std::string at = fmt::format("model.layers.{}.self_attn.", i);
    layer.attention.q_norm = gemma_norm(reader, at + "q_norm", g.spec.head_dim, g.epsilon);
    layer.attention.k_norm = gemma_norm(reader, at + "k_norm", g.spec.head_dim, g.epsilon);
    layer.attention.q_norm->group = layer.attention.k_norm->group = g.spec.head_dim;
    layer.attention.sliding_window = windows[static_cast<size_t>(i)];
    layer.attention.rope = layer.attention.sliding_window > 0 ? 1 : 0;
    layer.attention.softcap = softcap(config, "attn_logit_softcapping");
    g.spec.layers.push_back(std::move(layer));
  }
  g.spec.logit_softcap = softcap(config, "final_logit_softcapping");
  return finish_gemma(reader, std::move(g));
}

}  // namespace mxlm
