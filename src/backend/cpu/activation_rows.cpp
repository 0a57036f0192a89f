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

float limit_of(const GatedArgs& args) { return args.limit > 0 ? args.limit : INFINITY; }

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
      MXLM_DISPATCH(isa, activation_of_row<which>(x, n, y));
    }
  });
}

template <typename T>
void gated_of(Isa isa, const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y) {
  with_activation(args.activation, [&]<Activation which>(std::integral_constant<Activation, which>) {
    MXLM_DISPATCH(isa, gate_row<which>(args, gate, up, n, y));
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
