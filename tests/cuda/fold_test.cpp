// The fast route beside the exact one.

#include "mx/format.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

class Fold : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!IsSkipped() && architecture() != "sm_90")
      GTEST_SKIP() << "exponents are folded on Hopper, not " << architecture();
  }
  static Backend& fast() {
    static const auto backend = make_cuda_backend({.route = GemmRoute::fast});
    return *backend;
  }

  static std::vector<float> product(Backend& b, const HostMatrix& x, const HostMatrix& w, const OperandSpec& weights,
                                    const OperandSpec& activations, DType model, bool bias,
                                    std::string* route = nullptr) {
    const auto weight = b.prepare(w, weights);
    if (route != nullptr) *route = weight->route();
    const Tensor input = b.upload(x, model);
    Operand operand{.type = b.operand_type(activations, *weight, model)};
    const std::vector<int64_t> windows{0, x.rows};
    b.operands(input, windows, {&operand, 1});
    Tensor out = b.empty(model, x.rows, w.rows);
    std::vector<float> biases(static_cast<size_t>(w.rows), 0.5F);
    const Tensor bias_tensor = b.upload(matrix(biases, 1, w.rows), DType::f32);
    b.linear(operand, *weight, {.bias = bias ? &bias_tensor : nullptr}, out);
    return values_of(b, out);
  }
};

TEST_F(Fold, GivesTheExactRoutesProducts) {
  for (const char* weights : {"mxfp4_e2m1", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3"}) {
    for (const char* activations :
         {"mxfp4_e2m1", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "none", "mxint8"}) {
      for (const DType model : {DType::bf16, DType::f32}) {
        for (const bool bias : {false, true}) {
          const int64_t m = 77, n = 144, k = 1000;
          const auto x = random_values(static_cast<size_t>(m * k), 50, 3);
          const auto w = to_bf16(random_values(static_cast<size_t>(n * k), 51, 0.02F));
          const OperandSpec a = mx::parse_format(activations);
          std::string route;
          const auto folded =
              product(fast(), matrix(x, m, k), matrix(w, n, k), mx::parse_format(weights), a, model, bias, &route);
          const auto exact =
              product(gpu(), matrix(x, m, k), matrix(w, n, k), mx::parse_format(weights), a, model, bias);
          EXPECT_EQ(route, "fp8");
          // Hopper's FP8 sums keep about 13 fraction bits between promotions; docs/numerics.md has the bound.
          EXPECT_LE(relative_error(folded, exact), 1.5e-3) << weights << '/' << activations;
        }
      }
    }
  }
}

TEST_F(Fold, ComputesRowsThatDoNotFitExactly) {
  const int64_t m = 40, n = 96, k = 256;
  auto x = random_values(static_cast<size_t>(m * k), 52);
  // Rows 3 and 17 have blocks 2^-30 below others: only the exact route sees them where the large ones cancel.
  for (const int64_t r : {int64_t{3}, int64_t{17}}) {
    for (int64_t c = 0; c < k; ++c) x[static_cast<size_t>(r * k + c)] *= c < 32 ? 1e5F : 1e-5F;
  }
  auto w = random_values(static_cast<size_t>(n * k), 53, 0.1F);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < 32; ++c) w[static_cast<size_t>(r * k + c)] = 0;
  }
  const auto wide = to_bf16(w);
  const auto spec = mx::parse_format("mxfp4_e2m1");
  const RouteCounts before = fast().route_counts();
  const auto folded = product(fast(), matrix(x, m, k), matrix(wide, n, k), spec, spec, DType::f32, false);
  const RouteCounts after = fast().route_counts();
  EXPECT_EQ(after.fell_back - before.fell_back, 2);
  EXPECT_EQ(after.rows - before.rows, m);
  EXPECT_EQ(after.products - before.products, 1);
  const auto exact = product(gpu(), matrix(x, m, k), matrix(wide, n, k), spec, spec, DType::f32, false);
  for (const int64_t r : {int64_t{3}, int64_t{17}}) {
    const std::vector<float> ours(folded.begin() + r * n, folded.begin() + (r + 1) * n);
    const std::vector<float> theirs(exact.begin() + r * n, exact.begin() + (r + 1) * n);
    EXPECT_LE(relative_error(ours, theirs), 1e-6) << r;
  }
}

TEST_F(Fold, TakesTheExactRouteForWeightsThatDoNotFit) {
  auto w = random_values(64 * 256, 54);
  for (size_t c = 0; c < 32; ++c) w[c] *= 1e8F;
  const auto wide = to_bf16(w);
  EXPECT_EQ(fast().prepare(matrix(wide, 64, 256), mx::parse_format("mxfp4_e2m1"))->route(), "bf16");
  EXPECT_EQ(fast().prepare(matrix(wide, 64, 256), mx::parse_format("mxint8"))->route(), "bf16");
  EXPECT_EQ(fast().prepare(matrix(wide, 64, 256), std::nullopt)->route(), "bf16");
}

TEST_F(Fold, GivesARowTheSameBitsInAnyBatch) {
  const int64_t rows = 1500, n = 512, k = 512;
  const auto x = random_values(static_cast<size_t>(rows * k), 55);
  const auto w = to_bf16(random_values(static_cast<size_t>(n * k), 56));
  const auto spec = mx::parse_format("mxfp8_e4m3");
  const auto run = [&](int64_t first, int64_t count) {
    const std::vector<float> part(x.begin() + first * k, x.begin() + (first + count) * k);
    return product(fast(), matrix(part, count, k), matrix(w, n, k), spec, spec, DType::bf16, false);
  };
  const auto all = run(0, rows);
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {9, 33}, {100, 1400}}) {
    const std::vector<float> same(all.begin() + first * n, all.begin() + (first + count) * n);
    EXPECT_EQ(different(run(first, count), same), 0U) << count;
  }
}

}  // namespace
}  // namespace mxlm::cuda_test
