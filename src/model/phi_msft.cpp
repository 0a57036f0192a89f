#include <fmt/format.h>

#include "model/families.hpp"
#include "model/parts.hpp"

namespace mxlm {
namespace {

// Phi-1, 1.5 and 2 under the names of their own code of 2023 (modeling_phi.py, modeling_mixformer_sequential.py).
// transformers' convert_phi_weights_to_hf.py maps these names to those of its family phi.
struct Names {
  std::string embedding, layers, final_norm, head;
  int64_t first_layer = 0;
};

ModelSpec read_layout(const SpecReader& reader, const Names& names) {
  const Config& config = reader.config();
  ModelSpec spec;
  const Sizes sizes = read_sizes(config, {.head_dim = nullptr}, spec);
  spec.ropes.push_back(parse_rope(config, config.integer("rotary_dim", 2, spec.head_dim), spec.max_positions));
  const auto epsilon = static_cast<float>(config.number("layer_norm_eps"));
  const Activation activation = read_activation(config, "hidden_act");
  const int64_t intermediate = read_width_or(config, "intermediate_size", 4 * spec.hidden);
  read_embedding(reader, names.embedding, spec);
  for (int64_t i = 0; i < sizes.layers; ++i) {
    const std::string at = fmt::format("{}{}.", names.layers, i + names.first_layer);
    LayerSpec layer;
    layer.parallel = true;
    layer.attention.layout = QkvLayout::blocks;
    layer.attention.qkv.push_back(
        reader.linear(at + "mixer.Wqkv", Role::attention, sizes.q_width + 2 * sizes.kv_width, spec.hidden, true));
    layer.attention.o = reader.linear(at + "mixer.out_proj", Role::attention, spec.hidden, sizes.q_width, true);
    layer.attention.norm = reader.layer_norm(at + "ln", spec.hidden, epsilon, true);
    layer.attention.rope = 0;
    layer.attention.scale = default_scale(spec);
    layer.mlp = plain_mlp(reader, spec, at + "mlp.fc1", at + "mlp.fc2", intermediate, true, activation);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = reader.layer_norm(names.final_norm, spec.hidden, epsilon, true);
  read_head(reader, names.head, false, true, spec);
  return spec;
}

}  // namespace

std::optional<ModelSpec> read_phi_msft(const SpecReader& reader) {
  for (const std::string root : {"", "model."}) {
    if (reader.has(root + "transformer.h.0.mixer.Wqkv.weight")) {
      return read_layout(reader, {.embedding = root + "transformer.embd.wte.weight",
                                  .layers = root + "transformer.h.",
                                  .final_norm = "lm_head.ln",
                                  .head = "lm_head.linear"});
    }
    if (reader.has(root + "layers.1.mixer.Wqkv.weight")) {
      // One list holds the embedding, the layers and the head.
      const int64_t layers = reader.config().integer("num_hidden_layers", 1, 4096);
      const std::string last = fmt::format("{}layers.{}.", root, layers + 1);
      return read_layout(reader, {.embedding = root + "layers.0.wte.weight",
                                  .layers = root + "layers.",
                                  .final_norm = last + "ln",
                                  .head = last + "linear",
                                  .first_layer = 1});
    }
  }
  return std::nullopt;
}

}  // namespace mxlm
