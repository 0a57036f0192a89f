#include "backend/cpu/activation_rows.hpp"

#include <cassert>
#include <cmath>

#include "backend/cpu/row_values.hpp"

namespace mxlm::cpu {
namespace {

constexpr float kSqrt2OverPi = 0.79788456080286535588F;

// --- portable

/// A value of act(x) as a tensor of type T holds it.
template <typename T>
float activate(Activation activation, float x) {
  constexpr float kInverseSqrt2 = 0.70710678118654752440F;
  switch (activation) {
    case Activation::silu:
      return rounded<T>(silu_portable(x));
    case Activation::gelu_tanh:
      return rounded<T>(0.5F * x * (1.0F + std::tanh(kSqrt2OverPi * (x + 0.044715F * x * x * x))));
    case Activation::gelu_erf:
      return rounded<T>(0.5F * x * std::erfc(-x * kInverseSqrt2));  // 1 + erf would cancel
    case Activation::gelu_new: {
      const float cube = rounded<T>(rounded<T>(x * x) * x);
      const float inner = rounded<T>(x + rounded<T>(0.044715F * cube));
      const float t = rounded<T>(tanh_portable(rounded<T>(kSqrt2OverPi * inner)));
      return rounded<T>(rounded<T>(0.5F * x) * rounded<T>(1.0F + t));
    }
    case Activation::quick_gelu:
      return rounded<T>(x * rounded<T>(sigmoid_portable(rounded<T>(1.702F * x))));
    case Activation::relu:
      return x < 0.0F ? 0.0F : x;  // passes NaN on
    case Activation::relu_squared: {
      const float positive = x < 0.0F ? 0.0F : x;
      return rounded<T>(positive * positive);
    }
    case Activation::swiglu_oai:
      break;
  }
  assert(false);
  return x;
}

template <typename T>
void activation_portable(Activation activation, const T* x, int64_t n, T* y) {
  if (activation == Activation::silu) {  // the loop that compilers vectorise
    for (int64_t i = 0; i < n; ++i) store(silu_portable(load(x[i])), y[i]);
    return;
  }
  for (int64_t i = 0; i < n; ++i) store(activate<T>(activation, load(x[i])), y[i]);
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

template <typename T>
void gated_portable(const GatedArgs& args, const T* gate, const T* up, int64_t step, int64_t n, T* y) {
  if (args.activation == Activation::swiglu_oai) {
    const float limit = args.limit > 0 ? rounded<T>(args.limit) : INFINITY;
    for (int64_t i = 0; i < n; ++i) store(swiglu_oai<T>(load(gate[i * step]), load(up[i * step]), limit), y[i]);
  } else if (args.activation == Activation::silu && step == 1) {  // the loop that compilers vectorise
    for (int64_t i = 0; i < n; ++i) store(rounded<T>(silu_portable(load(gate[i]))) * load(up[i]), y[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      store(activate<T>(args.activation, load(gate[i * step])) * load(up[i * step]), y[i]);
    }
  }
}

#if defined(__x86_64__)

MXLM_TARGET_AVX512 void silu_gated_avx512(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    const __m512 v = silu_avx512(_mm512_maskz_loadu_ps(mask, gate + i));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

MXLM_TARGET_AVX512 void silu_gated_avx512(const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y) {
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __mmask32 mask = lanes_left_32(n - i);
    const Bf16Pair g = load_bf16_pair(mask, gate + i);
    const Bf16Pair u = load_bf16_pair(mask, up + i);
    const __m512i first = round_bf16_bits(_mm512_mul_ps(round_bf16_clean(silu_avx512(g.even)), u.even));
    const __m512i second = round_bf16_bits(_mm512_mul_ps(round_bf16_clean(silu_avx512(g.odd)), u.odd));
    _mm512_mask_storeu_epi16(y + i, mask, join_bf16(first, second));
  }
}

#endif

template <typename T>
void dispatch(Isa isa, const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y) {
  if (args.interleaved) return gated_portable(args, gate, gate + 1, 2, n, y);
  if (args.activation == Activation::silu) MXLM_IF_AVX512(isa, silu_gated_avx512(gate, up, n, y));
  gated_portable(args, gate, up, 1, n, y);
}

}  // namespace

void activation_row(Isa /*isa*/, Activation activation, const BFloat16* x, int64_t n, BFloat16* y) {
  activation_portable(activation, x, n, y);
}
void activation_row(Isa /*isa*/, Activation activation, const float* x, int64_t n, float* y) {
  activation_portable(activation, x, n, y);
}

void gated_row(Isa isa, const GatedArgs& args, const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y) {
  dispatch(isa, args, gate, up, n, y);
}
void gated_row(Isa isa, const GatedArgs& args, const float* gate, const float* up, int64_t n, float* y) {
  dispatch(isa, args, gate, up, n, y);
}

}  // namespace mxlm::cpu
