#include "model/parts.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace mxlm {
namespace {

constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 14;

struct NamedActivation {
  std::string_view name;
  Activation activation;
};
constexpr NamedActivation kActivations[] = {
    {"silu", Activation::silu},
    {"swish", Activation::silu},
    {"gelu", Activation::gelu_erf},
    {"gelu_python", Activation::gelu_erf},
    // These two are other ways to write gelu_new, and their operations are the same.
    {"gelu_fast", Activation::gelu_new},
    {"gelu_accurate", Activation::gelu_new},
    {"gelu_new", Activation::gelu_new},
    {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"gelu_python_tanh", Activation::gelu_tanh},
    {"quick_gelu", Activation::quick_gelu},
    {"relu", Activation::relu},
    {"relu2", Activation::relu_squared},
};

}  // namespace

Sizes read_sizes(const Config& config, const SizeKeys& keys, ModelSpec& spec) {
  spec.hidden = config.integer(keys.hidden, 1, kMaxWidth);
  spec.vocabulary = config.integer("vocab_size", 1, int64_t{1} << 24);
  spec.max_positions = config.integer(keys.max_positions, 1, int64_t{1} << 31);
  spec.heads = static_cast<int>(config.integer(keys.heads, 1, kMaxHeads));
  spec.kv_heads = keys.kv_heads == nullptr
                      ? spec.heads
                      : static_cast<int>(config.integer_or(keys.kv_heads, spec.heads, 1, kMaxHeads));
  if (spec.heads % spec.kv_heads != 0) {
    fail("'{}': {} attention heads cannot share {} key/value heads evenly.", config.name(), spec.heads, spec.kv_heads);
  }
  const bool stated = keys.head_dim != nullptr && config.has(keys.head_dim);
  if (!stated && spec.hidden % spec.heads != 0) {
    fail("'{}': {} {} is not a multiple of {} attention heads, and there is no head_dim.", config.name(), keys.hidden,
         spec.hidden, spec.heads);
  }
  spec.head_dim = static_cast<int>(stated ? config.integer(keys.head_dim, 1, 256) : spec.hidden / spec.heads);
  if (spec.head_dim > 256)
    fail("'{}': heads of {} are wider than the 256 that are supported.", config.name(), spec.head_dim);
  if (config.has("bos_token_id")) spec.bos_id = static_cast<int32_t>(config.integer("bos_token_id", -1, 1 << 24));
  return {.layers = config.integer(keys.layers, 1, kMaxLayers),
          .q_width = int64_t{spec.heads} * spec.head_dim,
          .kv_width = int64_t{spec.kv_heads} * spec.head_dim};
}

int64_t read_width(const Config& config, std::string_view key) { return config.integer(key, 1, kMaxWidth); }

int64_t read_width_or(const Config& config, std::string_view key, int64_t fallback) {
  return config.integer_or(key, fallback, 1, kMaxWidth);
}

Activation read_activation(const Config& config, std::string_view key) {
  const std::string name = config.string(key);
  std::string known;
  for (const NamedActivation& a : kActivations) {
    if (a.name == name) return a.activation;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", a.name);
  }
  fail("'{}': {} '{}' is not known; the known ones are: {}.", config.name(), key, name, known);
}

float default_scale(const ModelSpec& spec) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(spec.head_dim)));
}

int64_t rotary_dim(const Config& config, int64_t head_dim, std::string_view key) {
  const auto parameters = rope_parameters(config);
  const double factor = parameters && parameters->has("partial_rotary_factor")
                            ? parameters->number("partial_rotary_factor")
                            : config.number(key);
  const auto dim = static_cast<int64_t>(static_cast<double>(head_dim) * factor);
  if (!(factor > 0) || dim > head_dim || dim < 2) {
    fail("'{}': partial_rotary_factor {} leaves no rotary dimensions within the {} of a head.", config.name(), factor,
         head_dim);
  }
  return dim;
}

std::vector<int64_t> layer_windows(const Config& config, int64_t layers, int64_t window, bool (*slides)(int64_t)) {
  std::vector<int64_t> windows;
  const std::vector<std::string> types = config.strings("layer_types");
  if (!types.empty() && static_cast<int64_t>(types.size()) < layers) {
    fail("'{}': 'layer_types' has {} entries for {} layers.", config.name(), types.size(), layers);
  }
  for (int64_t i = 0; i < layers; ++i) {
    bool sliding = false;
    if (types.empty()) {
      sliding = slides(i);
    } else {
      const std::string& type = types[static_cast<size_t>(i)];
      if (type != "sliding_attention" && type != "full_attention") {
        fail("'{}': layer type '{}' is not known; it is full_attention or sliding_attention.", config.name(), type);
      }
      sliding = type == "sliding_attention";
    }
    windows.push_back(sliding ? window : 0);
  }
  return windows;
}

AttentionSpec separate_attention(const SpecReader& reader, const ModelSpec& spec, const std::string& at, bool qkv_bias,
                                 bool o_bias, const char* o) {
  const int64_t q_width = int64_t{spec.heads} * spec.head_dim;
  const int64_t kv_width = int64_t{spec.kv_heads} * spec.head_dim;
  AttentionSpec attention;
  attention.qkv.push_back(reader.linear(at + "q_proj", Role::attention, q_width, spec.hidden, qkv_bias));
  attention.qkv.push_back(reader.linear(at + "k_proj", Role::attention, kv_width, spec.hidden, qkv_bias));
  attention.qkv.push_back(reader.linear(at + "v_proj", Role::attention, kv_width, spec.hidden, qkv_bias));
  attention.o = reader.linear(at + o, Role::attention, spec.hidden, q_width, o_bias);
  attention.rope = spec.ropes.empty() ? -1 : 0;
  attention.scale = default_scale(spec);
  return attention;
}

MlpSpec gated_mlp(const SpecReader& reader, const ModelSpec& spec, const std::string& at, int64_t intermediate,
                  bool bias, Activation activation) {
  MlpSpec mlp;
  mlp.kind = MlpSpec::Kind::gated;
  mlp.activation.activation = activation;
  mlp.in.push_back(reader.linear(at + "gate_proj", Role::mlp, intermediate, spec.hidden, bias));
  mlp.in.push_back(reader.linear(at + "up_proj", Role::mlp, intermediate, spec.hidden, bias));
  mlp.out = reader.linear(at + "down_proj", Role::mlp, spec.hidden, intermediate, bias);
  return mlp;
}

void read_experts(const SpecReader& reader, const ModelSpec& spec, const std::string& at, int64_t experts,
                  int64_t intermediate, const ExpertNames& names, MlpSpec& mlp) {
  const bool fused = reader.has(at + "gate_up_proj");
  mlp.kind = fused ? MlpSpec::Kind::gated_fused : MlpSpec::Kind::gated;
  mlp.experts.reserve(static_cast<size_t>(experts));
  for (int64_t e = 0; e < experts; ++e) {
    const std::string expert = fmt::format("{}{}.", at, e);
    const auto part = [&](const char* name, int64_t outputs, int64_t inputs) {
      LinearSpec linear;
      linear.module = expert + name;
      linear.role = Role::mlp;
      linear.weight = reader.part(at + name, experts, e, outputs, inputs, /*transposed=*/false);
      return linear;
    };
    ExpertSpec& linears = mlp.experts.emplace_back();
    if (fused) {
      linears.in.push_back(part("gate_up_proj", 2 * intermediate, spec.hidden));
      linears.out = part("down_proj", spec.hidden, intermediate);
    } else {
      linears.in.push_back(reader.linear(expert + names.gate, Role::mlp, intermediate, spec.hidden, false));
      linears.in.push_back(reader.linear(expert + names.up, Role::mlp, intermediate, spec.hidden, false));
      linears.out = reader.linear(expert + names.down, Role::mlp, spec.hidden, intermediate, false);
    }
  }
}

MlpSpec plain_mlp(const SpecReader& reader, const ModelSpec& spec, const std::string& in, const std::string& out,
                  int64_t intermediate, bool bias, Activation activation, bool transposed) {
  MlpSpec mlp;
  mlp.kind = MlpSpec::Kind::plain;
  mlp.activation.activation = activation;
  mlp.in.push_back(reader.linear(in, Role::mlp, intermediate, spec.hidden, bias, transposed));
  mlp.out = reader.linear(out, Role::mlp, spec.hidden, intermediate, bias, transposed);
  return mlp;
}

void read_llama_layout(const SpecReader& reader, int64_t layers, float epsilon, bool tied,
                       const std::function<LayerSpec(const std::string& at, size_t i)>& layer, ModelSpec& spec) {
  read_embedding(reader, "model.embed_tokens.weight", spec);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec read = layer(at, static_cast<size_t>(i));
    read.attention.norm = reader.rms_norm(at + "input_layernorm", spec.hidden, epsilon);
    read.mlp.norm = reader.rms_norm(at + "post_attention_layernorm", spec.hidden, epsilon);
    spec.layers.push_back(std::move(read));
  }
  spec.final_norm = reader.rms_norm("model.norm", spec.hidden, epsilon);
  read_head(reader, "lm_head", tied, false, spec);
}

std::vector<int64_t> qwen_windows(const Config& config, int64_t layers, int64_t first) {
  const bool sliding = config.boolean("use_sliding_window");
  const int64_t window = sliding ? config.integer_or("sliding_window", 0, 1, int64_t{1} << 31) : 0;
  std::vector<int64_t> windows = layer_windows(config, layers, window, [](int64_t) { return true; });
  if (!config.has("layer_types")) std::fill_n(windows.begin(), std::min(first, layers), 0);
  return windows;
}

void read_head_norms(const SpecReader& reader, const ModelSpec& spec, const std::string& at, float epsilon,
                     AttentionSpec& attention) {
  attention.q_norm = reader.rms_norm(at + "q_norm", spec.head_dim, epsilon);
  attention.k_norm = reader.rms_norm(at + "k_norm", spec.head_dim, epsilon);
  attention.q_norm->group = attention.k_norm->group = spec.head_dim;
}

}  // namespace mxlm
