#include "backend/cpu/bf16_ops.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "backend/cpu/row_values.hpp"

namespace mxlm::cpu {
namespace {

/// A value rounded to bfloat16.
float bf(float x) { return to_float(to_bfloat16(x)); }

float sigmoid(float x) { return bf(1 / bf(bf(std::exp(-bf(x))) + 1)); }
float tanh_of(float x) { return bf(std::tanh(bf(x))); }
float softcapped(float x, float cap) { return cap * tanh_of(x / cap); }

/// microxcaling's only GELU: x sigmoid(1.59375 (x + 0.044677734 x^3)), whichever form was asked for.
float gelu(float x) {
  const float q = bf(x);
  const float cube = bf(bf(q * q) * q);
  return bf(q * sigmoid(bf(1.59375F * bf(bf(0.044677734F * cube) + q))));
}

/// act(x) as a tensor of type T holds it.
template <typename T>
float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return bf(bf(x) * sigmoid(x));
    case Activation::gelu_tanh:
    case Activation::gelu_erf:
      return gelu(x);
    case Activation::gelu_new: {
      const float cube = rounded<T>(rounded<T>(x * x) * x);
      const float inner = rounded<T>(x + rounded<T>(0.044715F * cube));
      const float t = tanh_of(rounded<T>(0.79788456080286535588F * inner));
      return rounded<T>(rounded<T>(0.5F * x) * rounded<T>(1.0F + t));
    }
    case Activation::quick_gelu:
      return rounded<T>(x * sigmoid(rounded<T>(1.702F * x)));
    case Activation::relu:
      return bf(x < 0 ? 0.0F : x);  // passes NaN on
    case Activation::relu_squared: {
      const float positive = bf(x < 0 ? 0.0F : x);
      return bf(positive * positive);
    }
    case Activation::swiglu_oai:
      break;
  }
  assert(false);
  return x;
}

template <typename T>
float swiglu_oai(float gate, float up, float limit) {
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : up;
  up = up < -limit ? -limit : up;
  const float glu = rounded<T>(gate * sigmoid(rounded<T>(gate * 1.702F)));
  return rounded<T>(up + 1.0F) * glu;
}

}  // namespace

void round_row_bf16(float* x, int64_t n) { std::transform(x, x + n, x, bf); }

template <typename T>
void layer_norm_row_bf16(const NormRow<T>& norm, const T* x, int64_t n, T* y) {
  assert(norm.kind == NormKind::layer && norm.weight_offset == 0);
  const auto mean_of = [n](double sum) { return bf(bf(static_cast<float>(sum)) / static_cast<float>(n)); };
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += bf(load(x[i]));
  const float mean = mean_of(sum);
  const auto shifted = [&](int64_t i) { return bf(bf(load(x[i])) - mean); };
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += bf(shifted(i) * shifted(i));
  const float inverse = bf(1 / bf(std::sqrt(bf(mean_of(squares) + norm.epsilon))));
  for (int64_t i = 0; i < n; ++i) {
    float value = bf(shifted(i) * inverse);
    if (norm.weight != nullptr) value = bf(bf(load(norm.weight[i])) * value);
    if (norm.bias != nullptr) value = bf(value + bf(load(norm.bias[i])));
    store(value, y[i]);
  }
}

template <typename T>
void activation_row_bf16(Activation activation, const T* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) store(activate<T>(activation, load(x[i])), y[i]);
}

template <typename T>
void gated_row_bf16(const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y) {
  const int64_t step = args.interleaved ? 2 : 1;
  if (args.interleaved) up = gate + 1;
  const float limit = rounded<T>(args.limit > 0 ? args.limit : std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i * step]);
    const float u = load(up[i * step]);
    store(args.activation == Activation::swiglu_oai ? swiglu_oai<T>(g, u, limit) : activate<T>(args.activation, g) * u,
          y[i]);
  }
}

void attention_row_bf16(const AttentionArgs& args, int head, int64_t first_offset, int64_t n, float* scores) {
  const float slope = args.slopes.empty() ? 0.0F : args.slopes[static_cast<size_t>(head)];
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    float score = bf(scores[i]) * args.scale;
    if (args.softcap != 0) score = softcapped(score, args.softcap);
    if (slope != 0) score += slope * static_cast<float>(first_offset + i);
    top = std::max(top, score);
    scores[i] = score;
  }
  double sum = 0;
  if (!args.sinks.empty()) {
    // The maximum, the sink's too, is taken off by an operator first.
    const float sink = args.sinks[static_cast<size_t>(head)];
    top = std::max(top, sink);
    for (int64_t i = 0; i < n; ++i) scores[i] -= top;
    sum = bf(std::exp(bf(sink - top)));
    top = 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    scores[i] = bf(std::exp(bf(bf(scores[i]) - bf(top))));
    sum += scores[i];
  }
  const float divisor = bf(static_cast<float>(sum));
  for (int64_t i = 0; i < n; ++i) scores[i] = bf(scores[i] / divisor);
}

template <typename T>
void add_bias_row_bf16(const float* bias, int64_t n, T* x) {
  for (int64_t i = 0; i < n; ++i) {
    const float value = bf(load(x[i]));
    store(bias == nullptr ? value : bf(value + bf(bias[i])), x[i]);
  }
}

void logits_row_bf16(const float* bias, float multiplier, float softcap, int64_t n, float* logits) {
  add_bias_row_bf16(bias, n, logits);
  for (int64_t i = 0; i < n; ++i) {
    const float logit = logits[i] * multiplier;
    logits[i] = softcap == 0 ? logit : softcapped(logit, softcap);
  }
}

template void layer_norm_row_bf16(const NormRow<float>&, const float*, int64_t, float*);
template void layer_norm_row_bf16(const NormRow<BFloat16>&, const BFloat16*, int64_t, BFloat16*);
template void activation_row_bf16(Activation, const float*, int64_t, float*);
template void activation_row_bf16(Activation, const BFloat16*, int64_t, BFloat16*);
template void gated_row_bf16(const GatedArgs&, const float*, const float*, int64_t, float*);
template void gated_row_bf16(const GatedArgs&, const BFloat16*, const BFloat16*, int64_t, BFloat16*);
template void add_bias_row_bf16(const float*, int64_t, float*);
template void add_bias_row_bf16(const float*, int64_t, BFloat16*);

}  // namespace mxlm::cpu
