// Activation functions of the CPU backend against transformers' and against float64.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ops_support.hpp"

namespace mxlm {
namespace {

class ActivationOnEachIsa : public OnEachIsa {};
MXLM_INSTANTIATE_ON_EACH_ISA(ActivationOnEachIsa);

std::vector<float> activated(Backend& b, const Tensor& x, Activation activation) {
  std::vector<Operand> outs;
  outs.push_back(operand(x.dtype()));
  b.activation(x, activation, Arithmetic::model_dtype, {}, outs);
  return download(b, outs[0].values);
}

std::vector<float> gated(Backend& b, const Tensor& gate, const Tensor& up, const GatedArgs& args) {
  std::vector<Operand> outs;
  outs.push_back(operand(gate.dtype()));
  b.gated_activation(gate, up, args, {}, outs);
  return download(b, outs[0].values);
}

/// Equal but for a few whose float32 value lay next to a tie; those are a bfloat16 step off at the inner rounding, of
/// which up to `steps` of the result come.
void expect_near_bf16(const std::vector<float>& got, const std::vector<float>& want, float steps) {
  ASSERT_EQ(got.size(), want.size());
  size_t different = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (bits_of(got[i]) == bits_of(want[i])) continue;
    ++different;
    EXPECT_NEAR(got[i], want[i], std::abs(want[i]) * steps * 0x1p-7F) << i;
  }
  EXPECT_LE(different, got.size() / 500);
}

TEST_P(ActivationOnEachIsa, MatchTransformersInBf16) {
  const auto b = backend(GetParam());
  const Tensor x = b->upload(view(golden("gated.gate").bf16, 1), DType::bf16);
  expect_near_bf16(activated(*b, x, Activation::gelu_new), golden("activation.gelu_new").values, 1);
  expect_near_bf16(activated(*b, x, Activation::quick_gelu), golden("activation.quick_gelu").values, 1);
  expect_near_bf16(activated(*b, x, Activation::silu), golden("gated.silu").values, 1);
  expect_same(activated(*b, x, Activation::relu_squared), golden("activation.relu2").values);
  const Tensor gate_up = b->upload(view(golden("swiglu.gate_up").bf16, 8), DType::bf16);
  const GatedArgs args{.activation = Activation::swiglu_oai, .interleaved = true, .limit = 7};
  expect_near_bf16(gated(*b, gate_up, Tensor(), args), golden("swiglu.y").values, 1);
}

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu_tanh:
    case Activation::gelu_new:
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::relu_squared:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::swiglu_oai:
      break;
  }
  return NAN;
}

constexpr Activation kAll[] = {Activation::silu,        Activation::gelu_tanh,  Activation::gelu_erf,
                               Activation::gelu_new,    Activation::quick_gelu, Activation::relu,
                               Activation::relu_squared};

TEST_P(ActivationOnEachIsa, MatchFloat64InFloat32) {
  const auto b = backend(GetParam());
  std::vector<float> values = random_values(1003, 12);
  for (int i = -40; i <= 40; ++i) values.push_back(static_cast<float>(i) * 0.25F);
  const Tensor x = b->upload(view(values, 1), DType::f32);
  for (const Activation activation : kAll) {
    const std::vector<float> got = activated(*b, x, activation);
    for (size_t i = 0; i < values.size(); ++i) {
      const double v = values[i];
      // 1 + tanh cancels on the negative side, as it does in the reference's float32.
      const double tolerance = std::abs(exact(activation, v)) * 2e-6 + std::abs(v) * 1.5e-7;
      EXPECT_NEAR(got[i], exact(activation, v), tolerance) << static_cast<int>(activation) << " of " << v;
    }
  }
}

TEST_P(ActivationOnEachIsa, GatedIsTheActivationTimesUpInEveryLayout) {
  const auto b = backend(GetParam());
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 31, 100}) {
      const Tensor wide = b->upload(view(random_values(static_cast<size_t>(3 * 2 * cols), 13), 3), type);
      const Tensor gate = wide.columns(0, cols);
      const Tensor up = wide.columns(cols, cols);
      std::vector<float> mixed;  // gate and up in turn
      const std::vector<float> all = download(*b, wide);
      for (int64_t r = 0; r < 3; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          mixed.push_back(all[static_cast<size_t>(r * 2 * cols + c)]);
          mixed.push_back(all[static_cast<size_t>(r * 2 * cols + cols + c)]);
        }
      }
      const Tensor interleaved = b->upload(view(mixed, 3), type);
      for (const Activation activation : kAll) {
        const std::vector<float> plain = activated(*b, gate, activation);
        const std::vector<float> got = gated(*b, gate, up, {.activation = activation});
        for (size_t i = 0; i < got.size(); ++i) {
          const size_t r = i / static_cast<size_t>(cols);
          float want = plain[i] * all[(r + 1) * static_cast<size_t>(cols) + i];
          if (type == DType::bf16) want = to_float(to_bfloat16(want));
          EXPECT_EQ(got[i], want) << static_cast<int>(activation);
        }
        expect_same(gated(*b, interleaved, Tensor(), {.activation = activation, .interleaved = true}), got);
      }
      const GatedArgs oai{.activation = Activation::swiglu_oai, .interleaved = false, .limit = 1};
      const std::vector<float> got = gated(*b, gate, up, oai);
      const GatedArgs mixed_oai{.activation = Activation::swiglu_oai, .interleaved = true, .limit = 1};
      expect_same(gated(*b, interleaved, Tensor(), mixed_oai), got);
      for (size_t i = 0; i < got.size(); ++i) {
        const size_t at = i / static_cast<size_t>(cols) * 2 * static_cast<size_t>(cols) + i % static_cast<size_t>(cols);
        const double g = std::min(all[at], 1.0F);
        const double u = std::clamp(all[at + static_cast<size_t>(cols)], -1.0F, 1.0F);
        const double want = (u + 1) * g / (1 + std::exp(-1.702 * g));
        // gate * alpha (whose sigmoid may be as small as its exponential), its sigmoid, their product, up + 1 and the
        // result are rounded by half a step each.
        const double unit = type == DType::bf16 ? 0x1p-9 : 0x1p-24;
        EXPECT_NEAR(got[i], want, std::abs(want) * unit * (8 + 1.1 * std::abs(1.702 * g)) + 1e-37);
      }
    }
  }
}

TEST_P(ActivationOnEachIsa, NansAndInfinities) {
  const auto b = backend(GetParam());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> values(40, 1.0F);
  values[3] = std::numeric_limits<float>::quiet_NaN();
  values[17] = kInfinity;
  for (const DType type : {DType::bf16, DType::f32}) {
    const Tensor x = b->upload(view(values, 1), type);
    for (const Activation activation : kAll) {
      const std::vector<float> got = activated(*b, x, activation);
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(std::isnan(got[i]), i == 3) << static_cast<int>(activation) << " " << i;
        EXPECT_EQ(std::isinf(got[i]), i == 17) << static_cast<int>(activation) << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace mxlm
