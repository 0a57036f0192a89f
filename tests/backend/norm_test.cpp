// Norms of the CPU backend against torch's and transformers' modules (ops_support.hpp) and against float64.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ops_support.hpp"

namespace mxlm {
namespace {

class NormOnEachIsa : public OnEachIsa {};
MXLM_INSTANTIATE_ON_EACH_ISA(NormOnEachIsa);

std::vector<float> normed(Backend& b, const Tensor& x, const NormArgs& args) {
  std::vector<Operand> outs;
  outs.push_back(operand(x.dtype()));
  b.norm(x, args, {}, outs);
  std::vector<float> result = download(b, outs[0].values);
  Tensor out = b.empty(x.dtype(), x.rows(), x.cols());
  b.norm(x, args, out);
  expect_same(download(b, out), result);
  b.copy(x, out);
  b.norm(out, args, out);  // in place
  expect_same(download(b, out), result);
  return result;
}

/// Bits of a bfloat16 module differ where its float32 value lay next to a tie: at most a few of them, by one step.
void expect_near_bf16(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  size_t different = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;
    ++different;
    EXPECT_NEAR(got[i], want[i], std::abs(want[i]) * 0x1p-7F) << i;
  }
  EXPECT_LE(different, 1 + got.size() / 1000);
}

TEST_P(NormOnEachIsa, LayerNormMatchesTorchInBf16) {
  const auto b = backend(GetParam());
  const Tensor x = b->upload(view(golden("layer_norm.x").bf16, 5), DType::bf16);
  const Tensor weight = b->upload(view(golden("layer_norm.weight").bf16, 1), DType::bf16);
  const Tensor bias = b->upload(view(golden("layer_norm.bias").bf16, 1), DType::bf16);
  expect_near_bf16(normed(*b, x, {.kind = NormKind::layer, .weight = &weight, .bias = &bias}),
                   golden("layer_norm.y").values);
  expect_near_bf16(normed(*b, x, {.kind = NormKind::layer}), golden("layer_norm.y_plain").values);
}

TEST_P(NormOnEachIsa, LayerNormIsAsAccurateAsTorchInFloat32) {
  const auto b = backend(GetParam());
  constexpr int64_t kCols = 1000;
  const std::vector<float>& x = golden("layer_norm.wide_x").values;
  const std::vector<float>& torch = golden("layer_norm.wide_y").values;
  const std::vector<float> got = normed(*b, b->upload(view(x, 4), DType::f32), {.kind = NormKind::layer});
  for (size_t r = 0; r < 4; ++r) {
    const float* row = x.data() + r * kCols;
    double mean = 0;
    for (int64_t i = 0; i < kCols; ++i) mean += row[i];
    mean /= kCols;
    double variance = 0;
    for (int64_t i = 0; i < kCols; ++i) variance += (row[i] - mean) * (row[i] - mean) / kCols;
    double ours = 0;
    double theirs = 0;
    for (size_t i = 0; i < kCols; ++i) {
      const double want = (row[i] - mean) / std::sqrt(variance + 1e-5);
      ours = std::max(ours, std::abs(got[r * kCols + i] - want));
      theirs = std::max(theirs, std::abs(torch[r * kCols + i] - want));
    }
    EXPECT_LE(ours, 2 * theirs) << "row " << r;
  }
}

TEST_P(NormOnEachIsa, OffsetsWeightsAndGroupsMatchTransformersInBf16) {
  const auto b = backend(GetParam());
  const Tensor x = b->upload(view(golden("norms.x").bf16, 4), DType::bf16);
  const Tensor weight = b->upload(view(golden("norms.weight").bf16, 1), DType::bf16);
  const auto rms = [&](const NormArgs& args) { return normed(*b, x, args); };
  expect_near_bf16(rms({.weight = &weight, .epsilon = 1e-6F, .weight_offset = 1, .round_before_weight = false}),
                   golden("norms.gemma").values);
  expect_near_bf16(rms({.weight = &weight, .epsilon = 1e-6F, .round_before_weight = false}),
                   golden("norms.olmo2").values);
  const Tensor part = weight.columns(0, 24);
  expect_near_bf16(rms({.weight = &part, .epsilon = 1e-6F, .group = 24}), golden("norms.qwen3").values);
}

TEST_P(NormOnEachIsa, AllVariantsMatchFloat64AndTheirOwnBitsEverywhere) {
  const auto b = backend(GetParam());
  const auto portable = backend(cpu::Isa::portable);
  constexpr int64_t kRows = 3;
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const int64_t group : {1, 8, 33, 80, 576}) {
      const int64_t cols = 2 * group;
      const std::vector<float> a = random_values(static_cast<size_t>(kRows * (cols + 7)), 1);
      const Tensor wide = b->upload(view(a, kRows), type);
      const Tensor x = wide.columns(5, cols);  // a column view
      std::vector<float> values(static_cast<size_t>(kRows * cols));
      b->download(x, values);
      for (const int weights : {0, 1, 2}) {  // none, one for every group, each its own
        const int64_t n = weights == 1 ? group : cols;
        const Tensor weight = b->upload(view(random_values(static_cast<size_t>(n), 2), 1), type);
        const Tensor bias = b->upload(view(random_values(static_cast<size_t>(n), 3), 1), type);
        const std::vector<float> w = download(*b, weight);
        const std::vector<float> c = download(*b, bias);
        for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
          NormArgs args{.kind = kind, .epsilon = 1e-3F, .round_before_weight = false, .group = group};
          if (weights != 0) {
            args.weight = &weight;
            args.bias = &bias;
            args.weight_offset = 0.5F;
          }
          const std::vector<float> got = normed(*b, x, args);
          expect_same(normed(*portable, x, args), got);
          for (int64_t g = 0; g < kRows * cols / group; ++g) {
            const float* row = values.data() + g * group;
            double mean = 0;
            for (int64_t i = 0; i < group; ++i) mean += row[i] / static_cast<double>(group);
            if (kind == NormKind::rms) mean = 0;
            double square = 0;
            for (int64_t i = 0; i < group; ++i) square += std::pow(row[i] - mean, 2) / static_cast<double>(group);
            for (int64_t i = 0; i < group; ++i) {
              const auto at = static_cast<size_t>((g * group + i) % n);
              const double plain = (row[i] - mean) / std::sqrt(square + static_cast<double>(1e-3F));
              const double factor = weights == 0 ? 1 : w[at] + 0.5;
              const double want = plain * factor + (weights == 0 ? 0 : static_cast<double>(c[at]));
              const double size = std::abs(plain * factor) + std::abs(want) + std::abs(factor);
              const double tolerance = size * 1e-6 + (type == DType::bf16 ? std::abs(want) * 0x1p-8 : 0);
              ASSERT_NEAR(got[static_cast<size_t>(g * group + i)], want, tolerance) << group << " " << g << " " << i;
            }
          }
        }
      }
    }
  }
}

TEST_P(NormOnEachIsa, RowsDoNotDependOnTheBatch) {
  const auto b = backend(GetParam());
  const Tensor x = b->upload(view(random_values(200UL * 130, 6), 200), DType::bf16);
  const Tensor row = x.view(150, 1, 0, 130);
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    const std::vector<float> all = normed(*b, x, {.kind = kind});
    const std::vector<float> one = normed(*b, row, {.kind = kind});
    expect_same(one, std::vector<float>(all.begin() + 150 * 130, all.begin() + 151 * 130));
  }
}

TEST_P(NormOnEachIsa, NansStayInTheirRow) {
  const auto b = backend(GetParam());
  std::vector<float> values = random_values(3UL * 50, 7);
  values[60] = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = b->upload(view(values, 3), DType::f32);
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    const std::vector<float> got = normed(*b, x, {.kind = kind});
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(std::isnan(got[i]), i / 50 == 1);
  }
}

}  // namespace
}  // namespace mxlm
