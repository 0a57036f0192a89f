#pragma once

// Pieces that several families are made of.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/spec.hpp"

namespace mxlm {

/// The keys under which config.json holds a model's sizes; nullptr = there is no such key.
struct SizeKeys {
  const char* hidden = "hidden_size";
  const char* layers = "num_hidden_layers";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";
  const char* max_positions = "max_position_embeddings";
  const char* head_dim = "head_dim";
};

/// What read_sizes found besides what it put into the spec.
struct Sizes {
  int64_t layers = 0;
  int64_t q_width = 0, kv_width = 0;  // heads * head_dim, kv_heads * head_dim
};

/// Fills a spec's sizes and special tokens, checked. A head_dim that config does not say is hidden / heads.
Sizes read_sizes(const Config& config, const SizeKeys& keys, ModelSpec& spec);

/// An integer in the range of layer widths.
int64_t read_width(const Config& config, std::string_view key);
int64_t read_width_or(const Config& config, std::string_view key, int64_t fallback);

/// The element-wise function under `key`, by transformers' names. Throws Error with the known ones.
Activation read_activation(const Config& config, std::string_view key);

/// 1 / sqrt(head_dim).
float default_scale(const ModelSpec& spec);

/// Rotary dimension: head_dim x partial_rotary_factor of the rotary parameters, or `key` of config where they have
/// none.
int64_t rotary_dim(const Config& config, int64_t head_dim, std::string_view key = "partial_rotary_factor");

/// The windows of all layers: those that `layer_types` names "sliding_attention" (by `slides(i)` if it is absent) get
/// `window`, the others 0. Throws Error on another type.
std::vector<int64_t> layer_windows(const Config& config, int64_t layers, int64_t window, bool (*slides)(int64_t));

/// q, k and v as separate Linears AT + q_proj ... and the output projection AT + `o`.
AttentionSpec separate_attention(const SpecReader& reader, const ModelSpec& spec, const std::string& at, bool qkv_bias,
                                 bool o_bias, const char* o = "o_proj");
/// gate_proj, up_proj, down_proj under `at`.
MlpSpec gated_mlp(const SpecReader& reader, const ModelSpec& spec, const std::string& at, int64_t intermediate,
                  bool bias, Activation activation);
/// Names of an expert's Linears where each is a tensor of its own: AT + I + "." + `gate` and so on.
struct ExpertNames {
  const char *gate, *up, *down;
};
/// The experts of a mixture, into `mlp`: from the fused tensors of transformers 5 if they are there, AT + gate_up_proj
/// [experts, 2 intermediate, hidden], gate first, and AT + down_proj [experts, hidden, intermediate]; else from tensors
/// of their own.
void read_experts(const SpecReader& reader, const ModelSpec& spec, const std::string& at, int64_t experts,
                  int64_t intermediate, const ExpertNames& names, MlpSpec& mlp);
/// out(act(in(x))).
MlpSpec plain_mlp(const SpecReader& reader, const ModelSpec& spec, const std::string& in, const std::string& out,
                  int64_t intermediate, bool bias, Activation activation, bool transposed = false);

/// A model in llama's layout, whose layers `layer` fills but for their two RMSNorms (`at` is "model.layers.I."): reads
/// embedding, layers, norms and head, which is tied where config does not say otherwise and `tied`.
void read_llama_layout(const SpecReader& reader, int64_t layers, float epsilon, bool tied,
                       const std::function<LayerSpec(const std::string& at, size_t i)>& layer, ModelSpec& spec);

/// Qwen's windows: `sliding_window` under `use_sliding_window`, from layer `first` on unless `layer_types` says which.
std::vector<int64_t> qwen_windows(const Config& config, int64_t layers, int64_t first);
/// RMSNorms over each head of q and k, AT + q_norm and k_norm.
void read_head_norms(const SpecReader& reader, const ModelSpec& spec, const std::string& at, float epsilon,
                     AttentionSpec& attention);

/// Reads the table of token embeddings, or the head's weight where a file holds that alone of a tied pair, and takes
/// its dtype for the model's.
void read_embedding(const SpecReader& reader, const std::string& tensor, ModelSpec& spec);
/// The head, decided as transformers 5 decides it: tied to the embedding if config says so (or says nothing and `tied`
/// is the family's default) unless the checkpoint holds both with different values, else `module`. Throws Error if
/// there is none, with the reason.
void read_head(const SpecReader& reader, const std::string& module, bool tied, bool bias, ModelSpec& spec);

}  // namespace mxlm
