#include "backend/cpu/activation_rows.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <type_traits>

#include "backend/cpu/row_values.hpp"

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

// --- AVX-512, in 16 lanes of float32; `bf16`: rounded to bfloat16 wherever the portable form is.

#define MXLM_INLINE __attribute__((always_inline)) inline

template <bool bf16>
MXLM_TARGET_AVX512 MXLM_INLINE __m512 held(__m512 x) {
  if constexpr (bf16) {
    return round_bf16_clean(x);
  } else {
    return x;
  }
}

MXLM_TARGET_AVX512 MXLM_INLINE __m512 times(__m512 x, float factor) { return _mm512_mul_ps(x, _mm512_set1_ps(factor)); }

/// act(x) before its last rounding.
template <Activation activation, bool bf16>
MXLM_TARGET_AVX512 MXLM_INLINE __m512 activate_avx512(__m512 x) {
  const __m512 zero = _mm512_setzero_ps();
  if constexpr (activation == Activation::silu) {
    return silu_avx512(x);
  } else if constexpr (activation == Activation::gelu_tanh) {
    const __m512 cubic = times(_mm512_mul_ps(_mm512_mul_ps(x, x), x), 0.044715F);
    return _mm512_mul_ps(x, sigmoid_avx512(times(_mm512_add_ps(x, cubic), 2 * kSqrt2OverPi)));
  } else if constexpr (activation == Activation::gelu_erf) {
    const __m512 z = times(_mm512_andnot_ps(_mm512_set1_ps(-0.0F), x), kInverseSqrt2);
    const __m512 tail = times(erfc_avx512(z), 0.5F);
    const __mmask16 negative = _mm512_cmp_ps_mask(x, zero, _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(_mm512_set1_ps(1.0F), tail), negative, tail));
  } else if constexpr (activation == Activation::gelu_new) {
    const __m512 cube = held<bf16>(_mm512_mul_ps(held<bf16>(_mm512_mul_ps(x, x)), x));
    const __m512 inner = held<bf16>(_mm512_add_ps(x, held<bf16>(times(cube, 0.044715F))));
    const __m512 t = held<bf16>(tanh_avx512(held<bf16>(times(inner, kSqrt2OverPi))));
    return _mm512_mul_ps(held<bf16>(times(x, 0.5F)), held<bf16>(_mm512_add_ps(_mm512_set1_ps(1.0F), t)));
  } else if constexpr (activation == Activation::quick_gelu) {
    return _mm512_mul_ps(x, held<bf16>(sigmoid_avx512(held<bf16>(times(x, 1.702F)))));
  } else {
    const __m512 positive = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, zero, _CMP_LT_OQ), zero);  // passes NaN on
    return activation == Activation::relu ? positive : _mm512_mul_ps(positive, positive);
  }
}

/// act(gate) * up before its last rounding.
template <Activation activation, bool bf16>
MXLM_TARGET_AVX512 MXLM_INLINE __m512 gate_avx512(__m512 gate, __m512 up, __m512 limit) {
  if constexpr (activation == Activation::swiglu_oai) {
    gate = _mm512_min_ps(limit, gate);  // the second operand where it is NaN
    up = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), limit), _mm512_min_ps(limit, up));
    const __m512 glu = _mm512_mul_ps(gate, held<bf16>(sigmoid_avx512(held<bf16>(times(gate, 1.702F)))));
    return _mm512_mul_ps(held<bf16>(_mm512_add_ps(up, _mm512_set1_ps(1.0F))), held<bf16>(glu));
  } else {
    return _mm512_mul_ps(held<bf16>(activate_avx512<activation, bf16>(gate)), up);
  }
}

template <Activation activation>
MXLM_TARGET_AVX512 void activation_avx512(const BFloat16* x, int64_t n, BFloat16* y) {
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __mmask32 mask = lanes_left_32(n - i);
    const Bf16Pair v = load_bf16_pair(mask, x + i);
    const __m512i even = round_bf16_bits(activate_avx512<activation, true>(v.even));
    const __m512i odd = round_bf16_bits(activate_avx512<activation, true>(v.odd));
    _mm512_mask_storeu_epi16(y + i, mask, join_bf16(even, odd));
  }
}

template <Activation activation>
MXLM_TARGET_AVX512 void activation_avx512(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    _mm512_mask_storeu_ps(y + i, mask, activate_avx512<activation, false>(_mm512_maskz_loadu_ps(mask, x + i)));
  }
}

template <Activation activation>
MXLM_TARGET_AVX512 void gated_avx512(const GatedArgs& args, const BFloat16* gate, const BFloat16* up, int64_t n,
                                     BFloat16* y) {
  const __m512 limit = round_bf16_clean(_mm512_set1_ps(limit_of(args)));
  if (args.interleaved) {  // a pair's even places are the gate
    for (int64_t i = 0; i < n; i += kLanes) {
      const Bf16Pair v = load_bf16_pair(lanes_left_32(2 * (n - i)), gate + 2 * i);
      store_bf16(lanes_left(n - i), y + i, round_bf16_bits(gate_avx512<activation, true>(v.even, v.odd, limit)));
    }
    return;
  }
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const __mmask32 mask = lanes_left_32(n - i);
    const Bf16Pair g = load_bf16_pair(mask, gate + i);
    const Bf16Pair u = load_bf16_pair(mask, up + i);
    const __m512i even = round_bf16_bits(gate_avx512<activation, true>(g.even, u.even, limit));
    const __m512i odd = round_bf16_bits(gate_avx512<activation, true>(g.odd, u.odd, limit));
    _mm512_mask_storeu_epi16(y + i, mask, join_bf16(even, odd));
  }
}

template <Activation activation>
MXLM_TARGET_AVX512 void gated_avx512(const GatedArgs& args, const float* gate, const float* up, int64_t n, float* y) {
  const __m512 limit = _mm512_set1_ps(limit_of(args));
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 mask = lanes_left(n - i);
    __m512 g;
    __m512 u;
    if (args.interleaved) {
      const __m512 low = _mm512_maskz_loadu_ps(lanes_left(2 * (n - i)), gate + 2 * i);
      const int64_t left = std::max<int64_t>(2 * (n - i) - kLanes, 0);
      const __m512 high = _mm512_maskz_loadu_ps(lanes_left(left), gate + 2 * i + kLanes);
      g = _mm512_permutex2var_ps(low, evens, high);
      u = _mm512_permutex2var_ps(low, odds, high);
    } else {
      g = _mm512_maskz_loadu_ps(mask, gate + i);
      u = _mm512_maskz_loadu_ps(mask, up + i);
    }
    _mm512_mask_storeu_ps(y + i, mask, gate_avx512<activation, false>(g, u, limit));
  }
}

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
      MXLM_IF_AVX512(isa, activation_avx512<which>(x, n, y));
      activation_portable<which>(x, n, y);
    }
  });
}

template <typename T>
void gated_of(Isa isa, const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y) {
  with_activation(args.activation, [&]<Activation which>(std::integral_constant<Activation, which>) {
    MXLM_IF_AVX512(isa, gated_avx512<which>(args, gate, up, n, y));
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
