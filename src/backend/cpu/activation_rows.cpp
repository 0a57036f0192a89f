#include "backend/cpu/activation_rows.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <type_traits>

#include "backend/cpu/row_values.hpp"
#include "backend/cpu/simd/math.hpp"

namespace mxlm::cpu {
namespace {

constexpr float kSqrt2OverPi = 0.79788456080286535588F;
constexpr float kInverseSqrt2 = 0.70710678118654752440F;

// --- portable

float gelu_erf(float x) {
  const float tail = 0.5F * erfc_portable((x < 0 ? -x : x) * kInverseSqrt2);  // 1 + erf would cancel
  return x * (x < 0 ? tail : 1.0F - tail);
}

/// act(x) as a tensor of type T holds it.
template <Activation activation, typename T>
float activate(float x) {
  if constexpr (activation == Activation::silu) {
    return rounded<T>(silu_portable(x));
  } else if constexpr (activation == Activation::gelu_tanh) {
    // 0.5 (1 + tanh u) is the sigmoid of 2 u, which does not cancel
    return rounded<T>(x * sigmoid_portable(2 * kSqrt2OverPi * (x + 0.044715F * x * x * x)));
  } else if constexpr (activation == Activation::gelu_erf) {
    return rounded<T>(gelu_erf(x));
  } else if constexpr (activation == Activation::gelu_new) {
    const float cube = rounded<T>(rounded<T>(x * x) * x);
    const float inner = rounded<T>(x + rounded<T>(0.044715F * cube));
    const float t = rounded<T>(tanh_portable(rounded<T>(kSqrt2OverPi * inner)));
    return rounded<T>(rounded<T>(0.5F * x) * rounded<T>(1.0F + t));
  } else if constexpr (activation == Activation::quick_gelu) {
    return rounded<T>(x * rounded<T>(sigmoid_portable(rounded<T>(1.702F * x))));
  } else {
    const float positive = x < 0.0F ? 0.0F : x;  // passes NaN on
    return activation == Activation::relu ? positive : rounded<T>(positive * positive);
  }
}

template <Activation activation, typename T>
void activation_portable(const T* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) store(activate<activation, T>(load(x[i])), y[i]);
}

/// swiglu_oai of one gate and up.
template <typename T>
float swiglu_oai(float gate, float up, float limit) {
  gate = gate > limit ? limit : gate;  // passes NaN on
  up = up > limit ? limit : up;
  up = up < -limit ? -limit : up;
  const float glu = rounded<T>(gate * rounded<T>(sigmoid_portable(rounded<T>(gate * 1.702F))));
  return rounded<T>(up + 1.0F) * glu;
}

float limit_of(const GatedArgs& args) { return args.limit > 0 ? args.limit : INFINITY; }

template <Activation activation, int64_t step, typename T>
void gated_portable(const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y) {
  const float limit = rounded<T>(limit_of(args));
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i * step]);
    const float u = load(up[i * step]);
    if constexpr (activation == Activation::swiglu_oai) {
      store(swiglu_oai<T>(g, u, limit), y[i]);
    } else {
      store(activate<activation, T>(g) * u, y[i]);
    }
  }
}

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/activation.inl"
#include "backend/cpu/simd/each_target.hpp"

namespace {

/// Calls f with the activation as a constant.
template <typename F>
void with_activation(Activation activation, const F& f) {
  switch (activation) {
    case Activation::silu:
      return f(std::integral_constant<Activation, Activation::silu>());
    case Activation::gelu_tanh:
      return f(std::integral_constant<Activation, Activation::gelu_tanh>());
    case Activation::gelu_erf:
      return f(std::integral_constant<Activation, Activation::gelu_erf>());
    case Activation::gelu_new:
      return f(std::integral_constant<Activation, Activation::gelu_new>());
    case Activation::quick_gelu:
      return f(std::integral_constant<Activation, Activation::quick_gelu>());
    case Activation::relu:
      return f(std::integral_constant<Activation, Activation::relu>());
    case Activation::relu_squared:
      return f(std::integral_constant<Activation, Activation::relu_squared>());
    case Activation::swiglu_oai:
      return f(std::integral_constant<Activation, Activation::swiglu_oai>());
  }
}

template <typename T>
void activation_of(Isa isa, Activation activation, const T* x, int64_t n, T* y) {
  assert(activation != Activation::swiglu_oai);
  with_activation(activation, [&]<Activation which>(std::integral_constant<Activation, which>) {
    if constexpr (which != Activation::swiglu_oai) {
      if (isa >= Isa::avx512) return avx512::activation_of_row<which>(x, n, y);
      if (isa == Isa::avx2) return avx2::activation_of_row<which>(x, n, y);
      activation_portable<which>(x, n, y);
    }
  });
}

template <typename T>
void gated_of(Isa isa, const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y) {
  with_activation(args.activation, [&]<Activation which>(std::integral_constant<Activation, which>) {
    if (isa >= Isa::avx512) return avx512::gate_row<which>(args, gate, up, n, y);
    if (isa == Isa::avx2) return avx2::gate_row<which>(args, gate, up, n, y);
    args.interleaved ? gated_portable<which, 2>(args, gate, gate + 1, n, y)
                     : gated_portable<which, 1>(args, gate, up, n, y);
  });
}

}  // namespace

void activation_row(Isa isa, Activation activation, const BFloat16* x, int64_t n, BFloat16* y) {
  activation_of(isa, activation, x, n, y);
}
void activation_row(Isa isa, Activation activation, const float* x, int64_t n, float* y) {
  activation_of(isa, activation, x, n, y);
}

void gated_row(Isa isa, const GatedArgs& args, const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y) {
  gated_of(isa, args, gate, up, n, y);
}
void gated_row(Isa isa, const GatedArgs& args, const float* gate, const float* up, int64_t n, float* y) {
  gated_of(isa, args, gate, up, n, y);
}

}  // namespace mxlm::cpu
