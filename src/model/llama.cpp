#include <fmt/format.h>

#include "base/error.hpp"
#include "model/families.hpp"

namespace mxlm {
namespace {

constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 14;

}  // namespace

ModelSpec read_llama(const SpecReader& reader) {
  const Config& config = reader.config();
  ModelSpec spec;
  spec.hidden = config.integer("hidden_size", 1, kMaxWidth);
  spec.vocabulary = config.integer("vocab_size", 1, int64_t{1} << 24);
  spec.max_positions = config.integer_or("max_position_embeddings", 2048, 1, int64_t{1} << 31);
  spec.heads = static_cast<int>(config.integer("num_attention_heads", 1, kMaxHeads));
  spec.kv_heads = static_cast<int>(config.integer_or("num_key_value_heads", spec.heads, 1, kMaxHeads));
  if (spec.heads % spec.kv_heads != 0) {
    fail("'{}': {} attention heads cannot share {} key/value heads evenly.", config.name(), spec.heads, spec.kv_heads);
  }
  if (!config.has("head_dim") && spec.hidden % spec.heads != 0) {
    fail("'{}': hidden_size {} is no multiple of {} attention heads and there is no head_dim.", config.name(),
         spec.hidden, spec.heads);
  }
  spec.head_dim = static_cast<int>(config.integer_or("head_dim", spec.hidden / spec.heads, 2, 256));
  const int64_t intermediate = config.integer("intermediate_size", 1, kMaxWidth);
  const int64_t layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  const auto epsilon = static_cast<float>(config.number_or("rms_norm_eps", 1e-6));
  const bool attention_bias = config.boolean_or("attention_bias", false);
  const bool mlp_bias = config.boolean_or("mlp_bias", false);
  const std::string activation = config.string_or("hidden_act", "silu");
  if (activation != "silu") {
    fail("'{}': hidden_act '{}' is not known for this family; llama checkpoints use silu.", config.name(), activation);
  }
  spec.rope = parse_rope(config, spec.head_dim, spec.max_positions);
  if (config.has("bos_token_id")) spec.bos_id = static_cast<int32_t>(config.integer("bos_token_id", -1, 1 << 24));

  const int64_t q_width = int64_t{spec.heads} * spec.head_dim;
  const int64_t kv_width = int64_t{spec.kv_heads} * spec.head_dim;
  spec.embedding = reader.matrix("model.embed_tokens.weight", spec.vocabulary, spec.hidden);
  spec.dtype = spec.embedding.matrix.type;
  spec.layers.reserve(static_cast<size_t>(layers));
  for (int64_t i = 0; i < layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention_norm = {reader.matrix(at + "input_layernorm.weight", 1, spec.hidden), epsilon};
    layer.mlp_norm = {reader.matrix(at + "post_attention_layernorm.weight", 1, spec.hidden), epsilon};
    layer.q = reader.linear(at + "self_attn.q_proj", Role::attention, q_width, spec.hidden, attention_bias);
    layer.k = reader.linear(at + "self_attn.k_proj", Role::attention, kv_width, spec.hidden, attention_bias);
    layer.v = reader.linear(at + "self_attn.v_proj", Role::attention, kv_width, spec.hidden, attention_bias);
    layer.o = reader.linear(at + "self_attn.o_proj", Role::attention, spec.hidden, q_width, attention_bias);
    layer.gate = reader.linear(at + "mlp.gate_proj", Role::mlp, intermediate, spec.hidden, mlp_bias);
    layer.up = reader.linear(at + "mlp.up_proj", Role::mlp, intermediate, spec.hidden, mlp_bias);
    layer.down = reader.linear(at + "mlp.down_proj", Role::mlp, spec.hidden, intermediate, mlp_bias);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = {reader.matrix("model.norm.weight", 1, spec.hidden), epsilon};
  spec.tied_head = config.boolean_or("tie_word_embeddings", false);
  if (spec.tied_head) {
    spec.head = {.module = "lm_head", .role = Role::lm_head, .weight = spec.embedding, .bias = std::nullopt};
  } else {
    spec.head = reader.linear("lm_head", Role::lm_head, spec.vocabulary, spec.hidden, false);
  }
  return spec;
}

}  // namespace mxlm
