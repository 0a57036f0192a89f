// The block-scaled route beside the exact one, on GPUs that have it, and the layout of its scales, anywhere.

#include <fstream>
#include <sstream>
#include <string>

#include "backend/cuda/scale_layout.hpp"
#include "mx/format.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

TEST(ScaleLayout, IsTorchaos) {
  std::ifstream file(MXLM_TEST_DATA "/cuda/scale_layout.txt");
  std::string line;
  int matrices = 0;
  std::getline(file, line);  // what made it
  int64_t rows = 0, blocks = 0;
  while (file >> rows >> blocks) {
    ++matrices;
    std::getline(file, line);
    std::getline(file, line);
    std::istringstream words(line);
    std::vector<int64_t> expected;
    for (int64_t x = 0; words >> x;) expected.push_back(x);
    std::vector<int64_t> ours(static_cast<size_t>(cuda::scale_bytes(rows, blocks)), 0);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t b = 0; b < blocks; ++b) {
        ours.at(static_cast<size_t>(cuda::scale_index(r, b, blocks))) = 1 + r * blocks + b;
      }
    }
    EXPECT_EQ(ours, expected) << rows << " x " << blocks;
  }
  EXPECT_EQ(matrices, 3);
}

/// Devices of compute capability 10.0 and later.
class Native : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    if (std::stoi(architecture().substr(3)) < 100) {
      GTEST_SKIP() << "no block-scaled products: " << architecture() << ", they come with compute capability 10.0";
    }
  }
  static Backend& fast() {
    static const auto backend = make_cuda_backend({.route = GemmRoute::fast});
    return *backend;
  }

  static std::vector<float> product(Backend& b, const HostMatrix& x, const HostMatrix& w, const OperandSpec& weights,
                                    const OperandSpec& activations, std::string* route = nullptr) {
    const auto weight = b.prepare(w, weights);
    if (route != nullptr) *route = weight->route();
    const Tensor input = b.upload(x, DType::bf16);
    Operand operand{.type = b.operand_type(activations, *weight, DType::bf16)};
    const std::vector<int64_t> windows{0, x.rows};
    b.operands(input, windows, {&operand, 1});
    Tensor out = b.empty(DType::f32, x.rows, w.rows);
    b.linear(operand, *weight, {}, out);
    return values_of(b, out);
  }
  static OperandSpec format(const char* name, int block = 32) {
    OperandSpec out = mx::parse_format(name);
    if (out) out->block_size = block;
    return out;
  }
};

TEST_F(Native, GivesTheExactRoutesProducts) {
  for (const char* weights : {"mxfp4_e2m1", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3"}) {
    for (const OperandSpec& activations :
         {format("mxfp4_e2m1"), format("mxfp6_e2m3"), format("mxfp6_e3m2"), format("mxfp8_e4m3"), format("mxfp8_e5m2"),
          OperandSpec(), format("mxint8"), format("mxfp4_e2m1", 16)}) {
      for (const int64_t k : {int64_t{32}, int64_t{160}, int64_t{1024}}) {
        const int64_t m = 77, n = 144;
        const auto x = to_bf16(random_values(static_cast<size_t>(m * k), 60, 3));
        const auto w = to_bf16(random_values(static_cast<size_t>(n * k), 61, 0.02F));
        std::string route;
        const auto ours = product(fast(), matrix(x, m, k), matrix(w, n, k), format(weights), activations, &route);
        const auto exact = product(gpu(), matrix(x, m, k), matrix(w, n, k), format(weights), activations);
        EXPECT_EQ(route, "block-scaled fp8");
        EXPECT_LE(relative_error(ours, exact), 1.5e-3)
            << weights << '/' << (activations ? mx::format_name(*activations) : "none") << ' ' << k;
      }
    }
  }
}

TEST_F(Native, TakesBlocksThatFoldingCannotHold) {
  const int64_t m = 40, n = 96, k = 256;
  auto x = random_values(static_cast<size_t>(m * k), 62);
  auto w = random_values(static_cast<size_t>(n * k), 63, 0.1F);
  // The first block is 2^30 times the others, and its weights are zero.
  for (size_t i = 0; i < x.size(); ++i) x[i] *= i % static_cast<size_t>(k) < 32 ? 0x1p15F : 0x1p-15F;
  for (size_t i = 0; i < w.size(); ++i) w[i] *= i % static_cast<size_t>(k) < 32 ? 0.0F : 1.0F;
  const auto narrow_x = to_bf16(x), narrow_w = to_bf16(w);
  const RouteCounts before = fast().route_counts();
  const auto ours =
      product(fast(), matrix(narrow_x, m, k), matrix(narrow_w, n, k), format("mxfp4_e2m1"), format("mxfp4_e2m1"));
  const RouteCounts after = fast().route_counts();
  EXPECT_EQ(after.rows - before.rows, m);
  EXPECT_EQ(after.fell_back, before.fell_back);
  const auto exact =
      product(gpu(), matrix(narrow_x, m, k), matrix(narrow_w, n, k), format("mxfp4_e2m1"), format("mxfp4_e2m1"));
  EXPECT_LE(relative_error(ours, exact), 1.5e-3);
}

TEST_F(Native, BlocksWithNanReachTheirRowsOnly) {
  const int64_t m = 140, n = 64, k = 128;
  auto x = random_values(static_cast<size_t>(m * k), 64);
  x[static_cast<size_t>(131 * k + 40)] = NAN;
  const auto narrow_x = to_bf16(x), w = to_bf16(random_values(static_cast<size_t>(n * k), 65));
  const auto ours =
      product(fast(), matrix(narrow_x, m, k), matrix(w, n, k), format("mxfp8_e4m3"), format("mxfp8_e5m2"));
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      ASSERT_EQ(std::isnan(ours[static_cast<size_t>(r * n + c)]), r == 131) << r << ' ' << c;
    }
  }
}

TEST_F(Native, GivesARowTheSameBitsInAnyBatch) {
  const int64_t rows = 1500, n = 512, k = 512;
  const auto x = to_bf16(random_values(static_cast<size_t>(rows * k), 66));
  const auto w = to_bf16(random_values(static_cast<size_t>(n * k), 67));
  const auto run = [&](int64_t first, int64_t count) {
    const std::vector<BFloat16> part(x.begin() + first * k, x.begin() + (first + count) * k);
    return product(fast(), matrix(part, count, k), matrix(w, n, k), format("mxfp8_e4m3"), format("mxfp8_e4m3"));
  };
  const auto all = run(0, rows);
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {9, 33}, {100, 1400}}) {
    const std::vector<float> same(all.begin() + first * n, all.begin() + (first + count) * n);
    EXPECT_EQ(different(run(first, count), same), 0U) << count;
  }
}

}  // namespace
}  // namespace mxlm::cuda_test
