// What experts, positions and sums need: routing, accumulating, rotating, adding, clamping, embedding.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/quantize.hpp"
#include "mx/format.hpp"
#include "ops_support.hpp"

namespace mxlm {
namespace {

class ExpertsOnEachIsa : public OnEachIsa {};
MXLM_INSTANTIATE_ON_EACH_ISA(ExpertsOnEachIsa);

// --- routing

std::vector<float> as_floats(const std::vector<int32_t>& ids) { return {ids.begin(), ids.end()}; }

TEST_P(ExpertsOnEachIsa, RoutesAsTransformers) {
  const auto b = backend(GetParam());
  const Tensor logits = b->upload(view(golden("router.logits").bf16, 6), DType::bf16);
  using Score = RoutingArgs::Score;
  const std::pair<std::string, RoutingArgs> models[] = {
      {"mixtral", {.top_k = 2, .score = Score::softmax_all, .normalise = true}},
      {"qwen3", {.top_k = 4, .score = Score::softmax_all, .round_weights = true}},
      {"gpt_oss", {.top_k = 4, .score = Score::softmax_chosen, .round_weights = true}}};
  for (const auto& [name, args] : models) {
    const Routing routing = b->choose_experts(logits, args);
    EXPECT_EQ(routing.top_k, args.top_k);
    EXPECT_EQ(as_floats(routing.experts), golden("router." + name + ".experts").values) << name;
    const std::vector<float>& want = golden("router." + name + ".weights").values;
    ASSERT_EQ(routing.weights.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      if (args.round_weights) {
        EXPECT_EQ(routing.weights[i], want[i]) << name;
      } else {
        EXPECT_NEAR(routing.weights[i], want[i], want[i] * 4e-7F) << name;
      }
    }
  }
}

TEST(Route, TiesGoToTheLowerIdAndNansAreNoCrash) {
  const auto b = backend();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits{1,   3,   3,   3,   0,  //
                                  nan, 1,   nan, 2,   0,  //
                                  nan, nan, nan, nan, nan, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
  for (const auto score : {RoutingArgs::Score::softmax_all, RoutingArgs::Score::softmax_chosen}) {
    const Routing routing = b->choose_experts(b->upload(view(logits, 4), DType::f32), {.top_k = 2, .score = score});
    EXPECT_EQ(routing.experts, (std::vector<int32_t>{1, 2, 1, 3, 0, 1, 0, 1}));
  }
  const Routing all = b->choose_experts(b->upload(view(std::vector<float>{0, 0}, 1), DType::f32), {.top_k = 2});
  EXPECT_EQ(all.experts, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(all.weights, (std::vector<float>{0.5F, 0.5F}));
  EXPECT_TRUE(b->choose_experts(b->empty(DType::bf16, 0, 8), {.top_k = 2}).experts.empty());
}

TEST(Route, RowsDoNotDependOnTheBatch) {
  const auto b = backend();
  const Tensor logits = b->upload(view(random_values(900UL * 64, 20, 0), 900), DType::bf16);
  const RoutingArgs args{.top_k = 8, .normalise = true};
  const Routing all = b->choose_experts(logits, args);
  const Routing one = backend(cpu::detect_isa(), 1)->choose_experts(logits.view(700, 1, 0, 64), args);
  float sum = 0;
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(all.experts[700 * 8 + i], one.experts[i]);
    EXPECT_EQ(all.weights[700 * 8 + i], one.weights[i]);
    if (i > 0) {
      EXPECT_LT(one.experts[i - 1], one.experts[i]);
    }
    sum += one.weights[i];
  }
  EXPECT_NEAR(sum, 1, 1e-6F);
}

TEST_P(ExpertsOnEachIsa, AccumulateAddsInFloat32) {
  const auto b = backend(GetParam());
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 16, 75}) {
      const Tensor y = b->upload(view(random_values(static_cast<size_t>(3 * cols), 21), 3), type);
      Tensor sum = b->upload(view(random_values(static_cast<size_t>(6 * cols), 22), 6), DType::f32);
      std::vector<float> want = download(*b, sum);
      const std::vector<float> values = download(*b, y);
      const std::vector<int32_t> rows{4, 0, 5};
      const std::vector<float> weights{0.3F, 1, -2.7F};
      b->accumulate(y, rows, weights, sum);
      for (size_t i = 0; i < 3; ++i) {
        for (int64_t c = 0; c < cols; ++c) {
          want[static_cast<size_t>(rows[i] * cols + c)] +=
              weights[i] * values[i * static_cast<size_t>(cols) + static_cast<size_t>(c)];
        }
      }
      expect_same(download(*b, sum), want);
      b->zero(sum);
      expect_same(download(*b, sum), std::vector<float>(static_cast<size_t>(6 * cols)));
    }
  }
}

TEST(Experts, EmptyInputsAreFine) {
  const auto b = backend();
  Tensor sum = b->empty(DType::f32, 2, 5);
  b->zero(sum);
  b->accumulate(b->empty(DType::bf16, 0, 5), {}, {}, sum);
  expect_same(download(*b, sum), std::vector<float>(10));
  Tensor none = b->empty(DType::bf16, 0, 8);
  b->zero(none);
  b->clamp(none, 1);
  b->add(none, none, 2, none);
  b->norm(none, {.kind = NormKind::layer}, none);
  std::vector<Operand> outs;
  outs.push_back(operand(DType::bf16));
  b->operands(none, {}, outs);
  b->activation(none, Activation::gelu_new, Arithmetic::model_dtype, {}, outs);
  Batch batch;
  batch.offsets = {0};
  b->attention(none, none, none, batch, {.heads = 1, .kv_heads = 1, .head_dim = 8}, outs);
  EXPECT_EQ(outs[0].values.rows(), 0);
}

// --- positions

TEST_P(ExpertsOnEachIsa, RotateMatchesOtherModels) {
  const auto b = backend(GetParam());
  const std::vector<int32_t> rows{0, 1, 2, 3};
  const Tensor cos = b->upload(view(golden("positions.cos").values, 4), DType::f32);
  const Tensor sin = b->upload(view(golden("positions.sin").values, 4), DType::f32);
  const Tensor cos16 = b->upload(view(golden("positions.cos").values, 4), DType::bf16);
  const Tensor sin16 = b->upload(view(golden("positions.sin").values, 4), DType::bf16);
  const auto turned = [&](const Rotary& rotary) {
    Tensor x = b->upload(view(golden("positions.x").bf16, 4), DType::bf16);
    b->rotate(x, 3, 20, rotary);
    return download(*b, x);
  };
  expect_same(turned({.cos = &cos16, .sin = &sin16, .rows = rows, .interleaved = true}),
              golden("positions.glm").values);
  expect_same(turned({.cos = &cos, .sin = &sin, .rows = rows, .interleaved = true}), golden("positions.cohere").values);
  expect_same(turned({.cos = &cos, .sin = &sin, .rows = rows}), golden("positions.olmo2").values);
}

TEST_P(ExpertsOnEachIsa, RotateGivesTheSameBitsEverywhereAndOnViews) {
  MXLM_CPU_ONLY("compares instruction sets");
  const auto b = backend(GetParam());
  const auto portable = backend(cpu::Isa::portable);
  for (const auto& [type, tables] :
       {std::pair{DType::bf16, DType::bf16}, std::pair{DType::bf16, DType::f32}, std::pair{DType::f32, DType::f32}}) {
    for (const int half : {1, 4, 16, 33, 40}) {
      const Tensor cos = b->upload(view(random_values(static_cast<size_t>(2 * half), 23), 2), tables);
      const Tensor sin = b->upload(view(random_values(static_cast<size_t>(2 * half), 24), 2), tables);
      const int stride = 2 * half + 3;
      const std::vector<float> values = random_values(static_cast<size_t>(3 * (2 * stride + 4)), 25);
      const std::vector<int32_t> rows{1, 0, 1};
      for (const bool interleaved : {false, true}) {
        std::vector<float> results[2];
        for (Backend* which : {b.get(), portable.get()}) {
          Tensor wide = which->upload(view(values, 3), type);
          Tensor x = wide.columns(4, 2 * stride - 3);
          which->rotate(x, 2, stride, {.cos = &cos, .sin = &sin, .rows = rows, .interleaved = interleaved});
          results[which == b.get() ? 0 : 1] = download(*which, wide);
        }
        expect_same(results[0], results[1]);
      }
    }
  }
}

// --- sums and the rest

float rounded_to(DType type, float x) { return type == DType::bf16 ? to_float(to_bfloat16(x)) : x; }

TEST_P(ExpertsOnEachIsa, AddRoundsAtEachStep) {
  const auto b = backend(GetParam());
  for (const auto& [a_type, type] :
       {std::pair{DType::bf16, DType::bf16}, std::pair{DType::f32, DType::bf16}, std::pair{DType::f32, DType::f32}}) {
    for (const int64_t cols : {1, 32, 75}) {
      for (const float multiplier : {1.0F, 0.22F}) {
        const auto n = static_cast<size_t>(4 * cols);
        const Tensor a = b->upload(view(random_values(n, 26), 4), a_type);
        Tensor c = b->upload(view(random_values(n, 27), 4), type);
        const std::vector<float> x = download(*b, a);
        const std::vector<float> y = download(*b, c);
        std::vector<float> want(n);
        for (size_t i = 0; i < n; ++i) {
          float v = rounded_to(type, x[i]);
          if (multiplier != 1) v = rounded_to(type, v * multiplier);
          want[i] = rounded_to(type, v + y[i]);
        }
        Tensor out = b->empty(type, 4, cols);
        b->add(a, c, multiplier, out);
        expect_same(download(*b, out), want);
        b->add(a, c, multiplier, c);
        expect_same(download(*b, c), want);
      }
    }
  }
}

TEST_P(ExpertsOnEachIsa, ClampKeepsNans) {
  const auto b = backend(GetParam());
  std::vector<float> values = random_values(3UL * 50, 28, 2);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  values[8] = -std::numeric_limits<float>::infinity();
  for (const DType type : {DType::bf16, DType::f32}) {
    Tensor x = b->upload(view(values, 3), type);
    std::vector<float> want = download(*b, x);
    for (float& v : want) {
      if (!std::isnan(v)) v = rounded_to(type, std::min(std::max(v, -1.3F), 1.3F));
    }
    b->clamp(x, 1.3F);
    expect_same(download(*b, x), want);
  }
}

TEST_P(ExpertsOnEachIsa, EmbedScalesAndAddsPositions) {
  const auto b = backend(GetParam());
  const std::vector<float> table = random_values(5UL * 19, 29);
  const std::vector<BFloat16> positions = random_bf16(6UL * 19, 30);
  Batch batch;
  batch.tokens = {4, 0, 4, 2, 1};
  batch.offsets = {0, 3, 5};
  const HostMatrix learned = view(positions, 6);
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const bool with_positions : {false, true}) {
      Tensor hidden = b->empty(type, 5, 19);
      b->embed(batch, view(table, 5), 3.5F, with_positions ? &learned : nullptr, 2, hidden);
      std::vector<float> want;
      for (size_t r = 0; r < 5; ++r) {
        const size_t position = (r < 3 ? r : r - 3) + 2;
        for (size_t c = 0; c < 19; ++c) {
          float v = rounded_to(type, table[static_cast<size_t>(batch.tokens[r]) * 19 + c]);
          v = rounded_to(type, v * 3.5F);
          if (with_positions) v = rounded_to(type, v + to_float(positions[position * 19 + c]));
          want.push_back(v);
        }
      }
      expect_same(download(*b, hidden), want);
    }
  }
  Tensor hidden = b->empty(DType::f32, 5, 19);
  EXPECT_THROW(b->embed(batch, view(table, 5), 1, &learned, 4, hidden), Error);
}

TEST_P(ExpertsOnEachIsa, LinearMultipliesBeforeTheResidual) {
  const auto b = backend(GetParam());
  for (const DType type : {DType::bf16, DType::f32}) {
    Operand x = operand(DType::bf16);
    x.values = b->upload(view(golden("linear.a").bf16, 3), DType::bf16);
    const auto weight = b->prepare(view(golden("linear.w").bf16, 37), std::nullopt);
    const Tensor residual = b->upload(view(golden("linear.residual").bf16, 3), type);
    Tensor plain = b->empty(type, 3, 37);
    b->linear(x, *weight, {}, plain);
    Tensor out = b->empty(type, 3, 37);
    b->linear(x, *weight, {.residual = &residual, .multiplier = 0.22F}, out);
    std::vector<float> want = download(*b, plain);
    const std::vector<float> r = download(*b, residual);
    for (size_t i = 0; i < want.size(); ++i) {
      want[i] = rounded_to(type, rounded_to(type, want[i] * 0.22F) + r[i]);
    }
    expect_same(download(*b, out), want);
    b->linear(x, *weight, {.multiplier = 0.22F}, out);
    b->linear(x, *weight, {}, plain);
    want = download(*b, plain);
    for (float& v : want) v = rounded_to(type, v * 0.22F);
    expect_same(download(*b, out), want);
  }
}

TEST_P(ExpertsOnEachIsa, OperandsOfAView) {
  const auto b = backend(GetParam());
  const mx::Format fp8{.element = mx::parse_element("mxfp8_e4m3").value_or(mx::ElementFormat{})};
  for (const DType type : {DType::bf16, DType::f32}) {
    const Tensor wide = b->upload(view(random_values(5UL * 90, 31), 5), type);
    const Tensor x = wide.view(1, 3, 20, 45);
    std::vector<Operand> outs;
    outs.push_back(operand(type));
    outs.push_back(operand(DType::bf16, fp8));
    b->operands(x, {}, outs);
    const std::vector<float> plain = download(*b, x);
    expect_same(download(*b, outs[0].values), plain);
    std::vector<float> want(plain.size());
    for (size_t r = 0; r < 3; ++r) {
      cpu::quantize_decode_row(cpu::Isa::portable, fp8, plain.data() + r * 45, 45, want.data() + r * 45);
    }
    expect_same(download(*b, outs[1].values), want);
  }
}

}  // namespace
}  // namespace mxlm
