#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {

namespace {

/// The kind of each layer: attention_types is [[[kinds], repeat], ...]; attention_layers wins if it exists.
std::vector<std::string> attention_kinds(const Config& config, int64_t layers) {
  std::vector<std::string> kinds;
  const auto groups = config.array("attention_types");
  if (config.has("attention_layers")) {
    kinds = config.strings("attention_layers");
  } else if (!groups) {
    for (int64_t i = 0; i < 24; ++i) kinds.emplace_back(i % 2 == 0 ? "global" : "local");
  } else {
    for (size_t g = 0; g < groups->length(); ++g) {
      const auto group = groups->array(std::to_string(g));
      const int64_t repeat = group->integer("1", 1, layers);
      for (int64_t r = 0; r < repeat && static_cast<int64_t>(kinds.size()) < layers; ++r) {
        for (const std::string& kind : group->strings("0")) kinds.push_back(kind);
      }
    }
  }
  if (static_cast<int64_t>(kinds.size()) < layers) {
    fail("'{}': 'attention_types' names {} layers of {}.", config.name(), kinds.size(), layers);
  }
  for (const std::string& kind : kinds) {
    if (kind != "global" && kind != "local") {
      fail("'{}': attention type '{}' is not known; it is global or local.", config.name(), kind);
    }
  }
  return kinds;
}

}  // namespace

ModelSpec read_gpt_neo(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(
      config, {.layers = "num_layers", .heads = "num_heads", .kv_heads = nullptr, .head_dim = nullptr}, spec);
  const auto epsilon = static_cast<float>(config.number("layer_norm_epsilon"));
  const Activation activation = read_activation(config, "activation_function");
  const int64_t intermediate = read_width_or(config, "intermediate_size", 4 * spec.hidden);
  const int64_t window = config.integer("window_size", 1, int64_t{1} << 31);
  const std::vector<std::string> kinds = attention_kinds(config, sizes.layers);
  read_embedding(reader, "transformer.wte.weight", spec);
  spec.positions = reader.matrix("transformer.wpe.weight", spec.max_positions, spec.hidden);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("transformer.h.{}.", i);
    LayerSpec layer;
    layer.attention = separate_attention(reader, spec, at + "attn.attention.", false, true, "out_proj");
    layer.attention.norm = reader.layer_norm(at + "ln_1", spec.hidden, epsilon, true);
    layer.attention.scale = 1;
    layer.attention.sliding_window = kinds[static_cast<size_t>(i)] == "local" ? window : 0;
    layer.mlp = plain_mlp(reader, spec, at + "mlp.c_fc", at + "mlp.c_proj", intermediate, true, activation);
    layer.mlp.norm = reader.layer_norm(at + "ln_2", spec.hidden, epsilon, true);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm("transformer.ln_f", spec.hidden, epsilon, true);
  read_head(reader, "lm_head", true, false, spec);
  return spec;
}

}  // namespace mxlm
