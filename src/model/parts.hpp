#pragma once

// Pieces that readers of several families share.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/spec.hpp"

namespace mxlm {

/// The keys of config.json that hold a model's sizes; nullptr = the family has no such key.
struct SizeKeys {
  const char* hidden = "hidden_size";
  const char* layers = "num_hidden_layers";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";
  const char* max_positions = "max_position_embeddings";
  const char* head_dim = "head_dim";
};

/// Sizes that ModelSpec does not hold.
struct Sizes {
  int64_t layers = 0;
  int64_t q_width = 0, kv_width = 0;  // heads * head_dim, kv_heads * head_dim
};

/// Checks the sizes and special tokens of a config and writes them into the spec. An absent head_dim is hidden / heads.
Sizes read_sizes(const Config& config, const SizeKeys& keys, ModelSpec& spec);

/// Reads an integer in the range of layer widths.
int64_t read_width(const Config& config, std::string_view key);
int64_t read_width_or(const Config& config, std::string_view key, int64_t fallback);

/// Reads the element-wise function under `key`, by its name in transformers. Throws Error, which lists the known names.
Activation read_activation(const Config& config, std::string_view key);

/// 1 / sqrt(head_dim).
float default_scale(const ModelSpec& spec);

/// The rotary dimension: head_dim x partial_rotary_factor of the rotary parameters, or x `key` of config if they do not
/// have that factor.
int64_t rotary_dim(const Config& config, int64_t head_dim, std::string_view key = "partial_rotary_factor");

/// The sliding windows of all layers. Layers whose type in `layer_types` is "sliding_attention" get `window`, other
/// layers get 0. Without `layer_types`, `slides(i)` says which layers slide. Throws Error for another type.
std::vector<int64_t> layer_windows(const Config& config, int64_t layers, int64_t window, bool (*slides)(int64_t));

/// Attention with q, k and v as separate Linears AT + q_proj, k_proj, v_proj, and the output projection AT + `o`.
AttentionSpec separate_attention(const SpecReader& reader, const ModelSpec& spec, const std::string& at, bool qkv_bias,
                                 bool o_bias, const char* o = "o_proj");
/// A gated MLP of AT + gate_proj, up_proj and down_proj.
MlpSpec gated_mlp(const SpecReader& reader, const ModelSpec& spec, const std::string& at, int64_t intermediate,
                  bool bias, Activation activation);
/// Names of an expert's Linears if each Linear has a tensor of its own: AT + I + "." + `gate` and so on.
struct ExpertNames {
  const char *gate, *up, *down;
};
/// Reads the experts of a mixture into `mlp`. If the checkpoint has the fused tensors of transformers 5, these are
/// AT + gate_up_proj [experts, 2 intermediate, hidden], gate first, and AT + down_proj [experts, hidden, intermediate].
/// Otherwise each Linear has a tensor of its own.
void read_experts(const SpecReader& reader, const ModelSpec& spec, const std::string& at, int64_t experts,
                  int64_t intermediate, const ExpertNames& names, MlpSpec& mlp);
/// A plain MLP, out(act(in(x))).
MlpSpec plain_mlp(const SpecReader& reader, const ModelSpec& spec, const std::string& in, const std::string& out,
                  int64_t intermediate, bool bias, Activation activation, bool transposed = false);

/// Reads a model in llama's layout: embedding, layers, norms and LM head. `layer` reads a layer without its two
/// RMSNorms (`at` is "model.layers.I."). If config does not say whether the LM head is tied, `tied` does.
void read_llama_layout(const SpecReader& reader, int64_t layers, float epsilon, bool tied,
                       const std::function<LayerSpec(const std::string& at, size_t i)>& layer, ModelSpec& spec);

/// Qwen's sliding windows. With `use_sliding_window`, the layers that `layer_types` names, or else all layers from
/// `first` on, have `sliding_window`.
std::vector<int64_t> qwen_windows(const Config& config, int64_t layers, int64_t first);
/// Reads the RMSNorms over each head of q and k, AT + q_norm and AT + k_norm.
void read_head_norms(const SpecReader& reader, const ModelSpec& spec, const std::string& at, float epsilon,
                     AttentionSpec& attention);

/// Reads the table of token embeddings, whose dtype becomes that of the model. If a file holds only the LM head of a
/// tied pair, reads the LM head's weight instead.
void read_embedding(const SpecReader& reader, const std::string& tensor, ModelSpec& spec);
/// Reads the LM head by the rules of transformers 5. It is tied to the embedding if config says so (`tied` is the
/// family's default), unless the checkpoint holds both with different values. Otherwise it is the Linear `module`.
/// Throws Error, which says why, if there is no LM head.
void read_head(const SpecReader& reader, const std::string& module, bool tied, bool bias, ModelSpec& spec);

}  // namespace mxlm
