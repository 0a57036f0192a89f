// Vector operations that round each step to bfloat16, against microxcaling (tests/data/vector/bf16.json, written by
// tools/goldens/make_vector_goldens.py).

#include "backend/cpu/bf16_ops.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ops_support.hpp"

namespace mxlm {
namespace {

using nlohmann::json;

std::vector<float> values_of(const std::string& name) {
  static const json golden = [] {
    std::ifstream file(std::string(MXLM_TEST_DATA) + "/vector/bf16.json");
    return json::parse(file);
  }();
  std::vector<float> out;
  const json& rows = golden["operations"][name];
  for (const json& row : rows) {
    if (row.is_array()) {
      for (const json& value : row) out.push_back(value.get<float>());
    } else {
      out.push_back(row.get<float>());
    }
  }
  return out;
}

constexpr int64_t kRows = 6, kCols = 40;

TEST(Bf16Ops, ActivationsAreThoseOfMicroxcaling) {
  const auto b = backend();
  const std::vector<float> values = values_of("x");
  ASSERT_EQ(values.size(), static_cast<size_t>(kRows * kCols));
  const Tensor x = b->upload(view(values, kRows), DType::f32);
  const auto activated = [&](Activation activation) {
    Operand out = operand(DType::f32);
    b->activation(x, activation, Arithmetic::bf16_rounded, {}, {&out, 1});
    return download(*b, out.values);
  };
  expect_same(activated(Activation::silu), values_of("silu"));
  expect_same(activated(Activation::gelu_erf), values_of("gelu"));
  expect_same(activated(Activation::gelu_tanh), values_of("gelu"));
  expect_same(activated(Activation::relu), values_of("relu"));
  expect_same(activated(Activation::relu_squared), values_of("relu_squared"));
  // What goes on in float32 after the rounding differs in the last bit.
  const auto expect_close = [](const std::vector<float>& got, const std::vector<float>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], std::abs(want[i]) * 0x1p-21F) << i;
  };
  expect_close(activated(Activation::gelu_new), values_of("gelu_new"));
  expect_close(activated(Activation::quick_gelu), values_of("quick_gelu"));
}

TEST(Bf16Ops, GatesMultiplyInTheModelDtype) {
  const auto b = backend();
  const Tensor gate = b->upload(view(values_of("x"), kRows), DType::f32);
  const std::vector<float> ups = values_of("gelu_new");
  const Tensor up = b->upload(view(ups, kRows), DType::f32);
  Operand out = operand(DType::f32);
  b->gated_activation(gate, up, {.activation = Activation::silu, .arithmetic = Arithmetic::bf16_rounded}, {},
                      {&out, 1});
  std::vector<float> want = values_of("silu");
  std::transform(want.begin(), want.end(), ups.begin(), want.begin(), std::multiplies<>());
  expect_same(download(*b, out.values), want);
}

TEST(Bf16Ops, LayerNormIsThatOfMicroxcaling) {
  const auto b = backend();
  const auto upload = [&](const char* name, int64_t rows) {
    return b->upload(view(values_of(name), rows), DType::f32);
  };
  const Tensor x = upload("x", kRows), weight = upload("weight", 1), bias = upload("bias", 1);
  Tensor y = b->empty(DType::f32, kRows, kCols);
  b->norm(x, {.kind = NormKind::layer, .weight = &weight, .bias = &bias, .arithmetic = Arithmetic::bf16_rounded}, y);
  expect_same(download(*b, y), values_of("layer_norm"));
}

TEST(Bf16Ops, SoftmaxIsThatOfMicroxcaling) {
  std::vector<float> scores = values_of("x_bf16");
  for (int64_t r = 0; r < kRows; ++r) cpu::attention_row_bf16({.scale = 1}, 0, 0, kCols, scores.data() + r * kCols);
  expect_same(scores, values_of("softmax"));
}

TEST(Bf16Ops, ALinearRoundsItsProductAndThenTheSum) {
  const auto b = backend();
  // 1 + 2^-9 rounds to 1, which the bias of 2^-8 (a tie, to even) leaves at 1; in one step it would be 1 + 2^-7.
  const std::vector<float> x{1 + 0x1p-9F}, one{1}, tie{0x1p-8F};
  const auto weight = b->prepare(view(one, 1), std::nullopt);
  Operand operand_x = operand(DType::f32);
  const Tensor tensor_x = b->upload(view(x, 1), DType::f32), bias = b->upload(view(tie, 1), DType::f32);
  operand_x.type = b->operand_type(std::nullopt, *weight, DType::f32);
  b->operands(tensor_x, {}, {&operand_x, 1});
  Tensor y = b->empty(DType::f32, 1, 1);
  b->linear(operand_x, *weight, {.bias = &bias, .arithmetic = Arithmetic::bf16_rounded}, y);
  EXPECT_EQ(download(*b, y), std::vector<float>{1});
  const Tensor residual = b->upload(view(std::vector<float>{0x1p-20F}, 1), DType::f32);
  b->linear(operand_x, *weight, {.bias = &bias, .residual = &residual, .arithmetic = Arithmetic::bf16_rounded}, y);
  EXPECT_EQ(download(*b, y), std::vector<float>{1 + 0x1p-20F});  // an operator, not rounded
  std::vector<float> logits(1);
  b->logits({.hidden = &operand_x, .weight = weight.get(), .bias = &bias, .arithmetic = Arithmetic::bf16_rounded},
            logits);
  EXPECT_EQ(logits, std::vector<float>{1});
}

}  // namespace
}  // namespace mxlm
