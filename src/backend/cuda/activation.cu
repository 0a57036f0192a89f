// Activation functions, as backend/cpu/activation_rows.cpp and bf16_ops.cpp define them, with the device's own
// functions (about an ulp of float32).

#include <cassert>
#include <cmath>
#include <type_traits>

#include "backend/cuda/operands.hpp"

namespace mxlm {
namespace cuda {
namespace {

constexpr float kSqrt2OverPi = 0.79788456080286535588F;
constexpr float kInverseSqrt2 = 0.70710678118654752440F;

__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

/// torch's formula, which gives -0 where e^-x overflows.
__device__ float silu(float x) { return x / (1.0F + expf(-x)); }

/// The same within a few units of float32's last place, for results that are rounded to bfloat16: on the special
/// function unit alone, or arithmetic would hold up the memory.
__device__ float silu_for_bf16(float x) { return __fdividef(x, 1.0F + exp2f(-1.44269504F * x)); }

__device__ float gelu_erf(float x) {
  const float tail = 0.5F * erfcf(fabsf(x) * kInverseSqrt2);  // 1 + erf would cancel
  return x * (x < 0 ? tail : 1.0F - tail);
}

/// act(x) as a tensor of type T holds it.
template <Activation activation, typename T>
__device__ float activate(float x) {
  if constexpr (activation == Activation::silu) {
    return rounded<T>(sizeof(T) == 2 ? silu_for_bf16(x) : silu(x));
  } else if constexpr (activation == Activation::gelu_tanh) {
    // 0.5 (1 + tanh u) is the sigmoid of 2 u, which does not cancel
    return rounded<T>(x * sigmoid(2 * kSqrt2OverPi * (x + 0.044715F * x * x * x)));
  } else if constexpr (activation == Activation::gelu_erf) {
    return rounded<T>(gelu_erf(x));
  } else if constexpr (activation == Activation::gelu_new) {
    const float cube = rounded<T>(rounded<T>(x * x) * x);
    const float inner = rounded<T>(x + rounded<T>(0.044715F * cube));
    const float t = rounded<T>(tanhf(rounded<T>(kSqrt2OverPi * inner)));
    return rounded<T>(rounded<T>(0.5F * x) * rounded<T>(1.0F + t));
  } else if constexpr (activation == Activation::quick_gelu) {
    return rounded<T>(x * rounded<T>(sigmoid(rounded<T>(1.702F * x))));
  } else {
    const float positive = x < 0.0F ? 0.0F : x;  // passes NaN on
    return activation == Activation::relu ? positive : rounded<T>(positive * positive);
  }
}

template <typename T, typename Sigmoid>
__device__ float swiglu_oai(float gate, float up, float limit, const Sigmoid& sigmoid_of) {
  gate = gate > limit ? limit : gate;  // passes NaN on
  up = up > limit ? limit : up;
  up = up < -limit ? -limit : up;
  const float glu = rounded<T>(gate * rounded<T>(sigmoid_of(rounded<T>(gate * 1.702F))));
  return rounded<T>(up + 1.0F) * glu;
}

// --- every operation rounded to bfloat16

__device__ float sigmoid_bf16(float x) { return bf(1.0F / bf(bf(expf(-bf(x))) + 1.0F)); }

/// act(x); microxcaling has one GELU, x sigmoid(1.59375 (x + 0.044677734 x^3)), whichever form was asked for.
template <Activation activation, typename T>
__device__ float activate_bf16(float x) {
  if constexpr (activation == Activation::silu) {
    return bf(bf(x) * sigmoid_bf16(x));
  } else if constexpr (activation == Activation::gelu_tanh || activation == Activation::gelu_erf) {
    const float q = bf(x);
    const float cube = bf(bf(q * q) * q);
    return bf(q * sigmoid_bf16(bf(1.59375F * bf(bf(0.044677734F * cube) + q))));
  } else if constexpr (activation == Activation::gelu_new) {
    const float cube = rounded<T>(rounded<T>(x * x) * x);
    const float inner = rounded<T>(x + rounded<T>(0.044715F * cube));
    const float t = bf(tanhf(bf(rounded<T>(kSqrt2OverPi * inner))));
    return rounded<T>(rounded<T>(0.5F * x) * rounded<T>(1.0F + t));
  } else if constexpr (activation == Activation::quick_gelu) {
    return rounded<T>(x * sigmoid_bf16(rounded<T>(1.702F * x)));
  } else {
    const float positive = bf(x < 0.0F ? 0.0F : x);  // passes NaN on
    return activation == Activation::relu ? positive : bf(positive * positive);
  }
}

template <Activation activation, typename T, Arithmetic arithmetic>
struct Activated {
  Rows x;
  __device__ void operator()(int64_t r, int64_t c, float (&out)[kChunk]) const {
    load_chunk<T>(x, r, c, out);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float y = arithmetic == Arithmetic::bf16_rounded ? activate_bf16<activation, T>(out[i])
                                                             : activate<activation, T>(out[i]);
      out[i] = c + i < x.cols ? rounded<T>(y) : 0.0F;
    }
  }
};

template <Activation activation, typename T, Arithmetic arithmetic>
struct Gated {
  Rows gate, up;
  int64_t cols;
  bool interleaved;
  float limit;
  __device__ void operator()(int64_t r, int64_t c, float (&out)[kChunk]) const {
    float g[kChunk];
    float u[kChunk];
    if (interleaved) {
      float low[kChunk];
      float high[kChunk];
      load_chunk<T>(gate, r, 2 * c, low);
      if (2 * c + kChunk < gate.cols) {
        load_chunk<T>(gate, r, 2 * c + kChunk, high);
      } else {
#pragma unroll
        for (int i = 0; i < kChunk; ++i) high[i] = 0;
      }
#pragma unroll
      for (int i = 0; i < kChunk / 2; ++i) {
        g[i] = low[2 * i];
        u[i] = low[2 * i + 1];
        g[i + kChunk / 2] = high[2 * i];
        u[i + kChunk / 2] = high[2 * i + 1];
      }
    } else {
      load_chunk<T>(gate, r, c, g);
      load_chunk<T>(up, r, c, u);
    }
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      float y;
      if constexpr (activation == Activation::swiglu_oai) {
        y = swiglu_oai<T>(g[i], u[i], limit, [](float x) {
          return arithmetic == Arithmetic::bf16_rounded ? sigmoid_bf16(x) : sigmoid(x);
        });
      } else {
        y = (arithmetic == Arithmetic::bf16_rounded ? activate_bf16<activation, T>(g[i])
                                                    : activate<activation, T>(g[i])) *
            u[i];
      }
      out[i] = c + i < cols ? rounded<T>(y) : 0.0F;
    }
  }
};

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

/// Calls f with null pointers of the model's type, and the arithmetic as a constant.
template <typename F>
void with_types(DType type, Arithmetic arithmetic, const F& f) {
  const auto with_type = [&](auto* pointer) {
    using Rounded = std::integral_constant<Arithmetic, Arithmetic::bf16_rounded>;
    using Plain = std::integral_constant<Arithmetic, Arithmetic::model_dtype>;
    arithmetic == Arithmetic::bf16_rounded ? f(pointer, Rounded()) : f(pointer, Plain());
  };
  type == DType::bf16 ? with_type(static_cast<BFloat16*>(nullptr)) : with_type(static_cast<float*>(nullptr));
}

/// Writes all targets of a plan.
template <typename Produce>
void write_targets(const Produce& produce, int64_t rows, int64_t cols, const OperandPlan& plan, cudaStream_t stream) {
  for (const Targets& targets : plan.launches) launch_write_rows(produce, rows, cols, targets, stream);
  for (const FoldTargets& targets : plan.folds) launch_fold_rows(produce, rows, cols, targets, stream);
}

void activate_rows(const View& x, Activation activation, Arithmetic arithmetic, const OperandPlan& plan,
                   cudaStream_t stream) {
  with_activation(activation, [&](auto constant) {
    constexpr Activation which = decltype(constant)::value;
    if constexpr (which != Activation::swiglu_oai) {
      with_types(x.type, arithmetic, [&](auto* pointer, auto chosen) {
        using T = std::remove_pointer_t<decltype(pointer)>;
        constexpr Arithmetic kArithmetic = decltype(chosen)::value;
        write_targets(Activated<which, T, kArithmetic>{make_rows(x)}, x.rows, x.cols, plan, stream);
      });
    }
  });
}

void gate_rows(const View& gate, const View& up, int64_t cols, const GatedArgs& args, const OperandPlan& plan,
               cudaStream_t stream) {
  with_activation(args.activation, [&](auto constant) {
    with_types(gate.type, args.arithmetic, [&](auto* pointer, auto chosen) {
      using T = std::remove_pointer_t<decltype(pointer)>;
      constexpr Arithmetic kArithmetic = decltype(chosen)::value;
      float limit = args.limit > 0 ? args.limit : INFINITY;
      if (sizeof(T) == 2) limit = to_float(to_bfloat16(limit));
      const Gated<decltype(constant)::value, T, kArithmetic> gated{make_rows(gate), make_rows(up), cols,
                                                                   args.interleaved, limit};
      write_targets(gated, gate.rows, cols, plan, stream);
    });
  });
}

}  // namespace
}  // namespace cuda

void CudaBackend::activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                             std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  assert(activation != Activation::swiglu_oai);
  const cuda::OperandPlan plan = cuda::plan_operands(*this, x.dtype(), x.rows(), x.cols(), outs);
  cuda::activate_rows(cuda::view(x), activation, arithmetic, plan, stream());
  cuda::finish_operands(*this, plan, window_offsets);
}

void CudaBackend::gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                                   std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  const int64_t cols = args.interleaved ? gate.cols() / 2 : gate.cols();
  assert(args.interleaved ? gate.cols() % 2 == 0
                          : gate.dtype() == up.dtype() && gate.rows() == up.rows() && gate.cols() == up.cols());
  const cuda::OperandPlan plan = cuda::plan_operands(*this, gate.dtype(), gate.rows(), cols, outs);
  const cuda::View up_view = args.interleaved ? cuda::View{} : cuda::view(up);
  cuda::gate_rows(cuda::view(gate), up_view, cols, args, plan, stream());
  cuda::finish_operands(*this, plan, window_offsets);
}

}  // namespace mxlm
