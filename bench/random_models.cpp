#include "random_models.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "base/parallel.hpp"

namespace mxlm::bench {
namespace {

constexpr float kSpread = 0.02F;
constexpr int64_t kBlock = 4194301;  // a prime, so that no row of a weight is another one's
constexpr int64_t kAlign = 64;       // elements

void store(std::byte* to, DType type, float x) {
  if (type == DType::f32) {
    std::memcpy(to, &x, sizeof x);
  } else {
    const BFloat16 rounded = to_bfloat16(x);
    std::memcpy(to, &rounded, sizeof rounded);
  }
}

LinearSpec linear(RandomWeights& weights, std::string module, Role role, int64_t outputs, int64_t inputs, bool bias) {
  LinearSpec out;
  out.module = std::move(module);
  out.role = role;
  out.weight = weights.matrix(outputs, inputs);
  if (bias) out.bias = weights.matrix(1, outputs);
  return out;
}

NormSpec norm(RandomWeights& weights, NormKind kind, int64_t width) {
  NormSpec out;
  out.kind = kind;
  out.weight = weights.norm_weight(width);
  if (kind == NormKind::layer) out.bias = weights.matrix(1, width);
  out.round_before_weight = kind == NormKind::rms;
  return out;
}

AttentionSpec attention(RandomWeights& weights, const ModelSpec& spec, const std::string& at, bool qkv_bias,
                        bool o_bias) {
  AttentionSpec out;
  const int64_t q = int64_t{spec.heads} * spec.head_dim, kv = int64_t{spec.kv_heads} * spec.head_dim;
  out.qkv.push_back(linear(weights, at + "q_proj", Role::attention, q, spec.hidden, qkv_bias));
  out.qkv.push_back(linear(weights, at + "k_proj", Role::attention, kv, spec.hidden, qkv_bias));
  out.qkv.push_back(linear(weights, at + "v_proj", Role::attention, kv, spec.hidden, qkv_bias));
  out.o = linear(weights, at + "o_proj", Role::attention, spec.hidden, q, o_bias);
  out.rope = spec.ropes.empty() ? -1 : 0;
  out.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(spec.head_dim)));
  return out;
}

MlpSpec plain_mlp(RandomWeights& weights, const std::string& at, int64_t hidden) {
  MlpSpec out;
  out.kind = MlpSpec::Kind::plain;
  out.activation.activation = Activation::gelu_new;
  out.in.push_back(linear(weights, at + "fc1", Role::mlp, 4 * hidden, hidden, true));
  out.out = linear(weights, at + "fc2", Role::mlp, hidden, 4 * hidden, true);
  return out;
}

ModelSpec sized(RandomWeights& weights, const char* family, int64_t hidden, int64_t vocabulary, int heads, int kv_heads,
                int head_dim, int64_t positions) {
  ModelSpec spec;
  spec.family = family;
  spec.dtype = weights.type();
  spec.hidden = hidden;
  spec.vocabulary = vocabulary;
  spec.max_positions = positions;
  spec.heads = heads;
  spec.kv_heads = kv_heads;
  spec.head_dim = head_dim;
  spec.embedding = weights.matrix(vocabulary, hidden);
  return spec;
}

}  // namespace

RandomWeights::RandomWeights(DType type, int64_t elements)
    : type_(type), elements_(elements), values_(new std::byte[static_cast<size_t>(elements) * dtype_size(type)]) {
  const auto size = static_cast<int64_t>(dtype_size(type));
  const int64_t block = std::min(kBlock, elements);
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, kSpread);
  for (int64_t i = 0; i < block; ++i) store(values_.get() + i * size, type, normal(generator));
  ThreadPool pool(default_thread_count());
  const int64_t copies = (elements + block - 1) / block;
  pool.run(copies - 1, [&](int64_t i, int) {
    const int64_t first = (i + 1) * block;
    std::memcpy(values_.get() + first * size, values_.get(),
                static_cast<size_t>(std::min(block, elements - first) * size));
  });
}

WeightSource RandomWeights::matrix(int64_t rows, int64_t cols) {
  const int64_t count = rows * cols;
  const auto size = static_cast<int64_t>(dtype_size(type_));
  const std::byte* data = nullptr;
  do {
    if (next_ + count > elements_) {
      next_ = ++wraps_ * kAlign;
      if (next_ + count > elements_) fail("{} random values are too few for a matrix of {}.", elements_, count);
    }
    data = values_.get() + next_ * size;
    next_ += kAlign;
  } while (!given_.insert(data).second);
  next_ += (count - 1) / kAlign * kAlign;
  WeightSource source;
  source.matrix = {.type = type_, .rows = rows, .cols = cols, .stride = cols, .data = data};
  source.entry.type = type_;
  source.entry.shape = {rows, cols};
  source.entry.size = static_cast<size_t>(count * size);
  return source;
}

WeightSource RandomWeights::norm_weight(int64_t cols) {
  const size_t size = dtype_size(type_);
  auto& values = norms_.emplace_back(new std::byte[static_cast<size_t>(cols) * size]);
  std::mt19937 generator(static_cast<uint32_t>(norms_.size()));
  std::normal_distribution<float> normal(1, kSpread);
  for (int64_t i = 0; i < cols; ++i) store(values.get() + static_cast<size_t>(i) * size, type_, normal(generator));
  WeightSource source;
  source.matrix = {.type = type_, .rows = 1, .cols = cols, .stride = cols, .data = values.get()};
  source.entry.type = type_;
  source.entry.shape = {cols};
  source.entry.size = static_cast<size_t>(cols) * size;
  return source;
}

ModelSpec llama_model(RandomWeights& weights, const LlamaShape& shape) {
  ModelSpec spec = sized(weights, shape.experts > 0 ? "mixtral" : "llama", shape.hidden, shape.vocabulary, shape.heads,
                         shape.kv_heads, shape.head_dim, 131072);
  RopeSpec rope;
  rope.dim = shape.head_dim;
  if (shape.experts > 0) {
    rope.theta = 1e6;
  } else {
    rope.type = RopeSpec::Type::llama3;
    rope.theta = 500000;
    rope.factor = 8;
    rope.original_max_positions = 8192;
  }
  spec.ropes.push_back(rope);
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.attention = attention(weights, spec, at + "self_attn.", false, false);
    layer.attention.norm = norm(weights, NormKind::rms, shape.hidden);
    layer.mlp.norm = norm(weights, NormKind::rms, shape.hidden);
    const auto gated = [&](const std::string& name, std::vector<LinearSpec>& in, LinearSpec& out) {
      in.push_back(linear(weights, name + "gate_proj", Role::mlp, shape.intermediate, shape.hidden, false));
      in.push_back(linear(weights, name + "up_proj", Role::mlp, shape.intermediate, shape.hidden, false));
      out = linear(weights, name + "down_proj", Role::mlp, shape.hidden, shape.intermediate, false);
    };
    if (shape.experts == 0) {
      gated(at + "mlp.", layer.mlp.in, layer.mlp.out);
    } else {
      layer.mlp.router = linear(weights, at + "mlp.gate", Role::router, shape.experts, shape.hidden, false);
      layer.mlp.routing.top_k = shape.top_k;
      layer.mlp.routing.normalise = true;
      for (int e = 0; e < shape.experts; ++e) {
        ExpertSpec& expert = layer.mlp.experts.emplace_back();
        gated(fmt::format("{}mlp.experts.{}.", at, e), expert.in, expert.out);
      }
    }
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = norm(weights, NormKind::rms, shape.hidden);
  spec.lm_head = linear(weights, "lm_head", Role::lm_head, shape.vocabulary, shape.hidden, false);
  return spec;
}

ModelSpec phi_model(RandomWeights& weights, const PlainShape& shape) {
  const int head_dim = static_cast<int>(shape.hidden / shape.heads);
  ModelSpec spec = sized(weights, "phi", shape.hidden, shape.vocabulary, shape.heads, shape.heads, head_dim, 2048);
  RopeSpec rope;
  rope.dim = head_dim / 2;
  spec.ropes.push_back(rope);
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    LayerSpec layer;
    layer.parallel = true;
    layer.attention = attention(weights, spec, at + "self_attn.", true, true);
    layer.attention.norm = norm(weights, NormKind::layer, shape.hidden);
    layer.mlp = plain_mlp(weights, at + "mlp.", shape.hidden);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = norm(weights, NormKind::layer, shape.hidden);
  spec.lm_head = linear(weights, "lm_head", Role::lm_head, shape.vocabulary, shape.hidden, true);
  return spec;
}

ModelSpec gpt_neo_model(RandomWeights& weights, const PlainShape& shape) {
  const int head_dim = static_cast<int>(shape.hidden / shape.heads);
  ModelSpec spec = sized(weights, "gpt_neo", shape.hidden, shape.vocabulary, shape.heads, shape.heads, head_dim, 2048);
  spec.positions = weights.matrix(spec.max_positions, shape.hidden);
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string at = fmt::format("transformer.h.{}.", i);
    LayerSpec layer;
    layer.attention = attention(weights, spec, at + "attn.", false, true);
    layer.attention.norm = norm(weights, NormKind::layer, shape.hidden);
    layer.attention.scale = 1;
    layer.attention.sliding_window = i % 2 == 1 ? 256 : 0;
    layer.mlp = plain_mlp(weights, at + "mlp.", shape.hidden);
    layer.mlp.norm = norm(weights, NormKind::layer, shape.hidden);
    spec.layers.push_back(std::move(layer));
  }
  spec.final_norm = norm(weights, NormKind::layer, shape.hidden);
  spec.tied_head = true;
  spec.lm_head.module = "lm_head";
  spec.lm_head.role = Role::lm_head;
  spec.lm_head.weight = spec.embedding;
  return spec;
}

std::vector<Window> random_windows(size_t count, size_t length, int64_t vocabulary) {
  std::mt19937 generator(2);
  std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(vocabulary - 1));
  std::vector<Window> windows(count);
  for (Window& window : windows) {
    for (size_t t = 0; t < length; ++t) window.tokens.push_back(token(generator));
  }
  return windows;
}

}  // namespace mxlm::bench
