#include "backend/cpu/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "attention_reference.hpp"

namespace mxlm::cpu {
namespace {

struct Shape {
  int heads, kv_heads, head_dim;
};

class Attention : public testing::TestWithParam<Shape> {};

const std::vector<int64_t> kWindows{1, 2, 31, 32, 33, 65, 200};

TEST_P(Attention, AgreesWithFloat64) {
  const auto [heads, kv_heads, head_dim] = GetParam();
  for (const DType type : {DType::bf16, DType::f32}) {
    const Problem problem = make_problem(type, kWindows, heads, kv_heads, head_dim, 7);
    const Reference reference = attend_reference(problem);
    for (const Isa isa : isas()) {
      for (const Order order : {Order::forward, Order::reversed}) {
        ThreadPool pool(2);
        Tensor out = make_tensor(type, problem.q.rows(), problem.q.cols());
        attention(isa, order, pool, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, out);
        const Deviation d = deviation(reference, out);
        // bf16: P and the output are each rounded by at most 2^-8, and the sum is of P before rounding.
        const double unit = type == DType::bf16 ? 0x1p-8 : 0x1p-24;
        const double bound = type == DType::bf16 ? 2.05 : 40;
        EXPECT_LE(d.worst, bound * unit) << isa_name(isa) << " " << dtype_name(type);
        EXPECT_LE(d.rms, (type == DType::bf16 ? 0.4 : 4) * unit) << isa_name(isa) << " " << dtype_name(type);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(Shape{2, 2, 64}, Shape{4, 2, 32}, Shape{3, 1, 40}, Shape{2, 1, 80},
                                         Shape{9, 1, 16}, Shape{2, 1, 96}, Shape{3, 1, 120}, Shape{2, 1, 128},
                                         Shape{1, 1, 256}, Shape{2, 2, 7}),
                         [](const auto& shape) {
                           return std::to_string(shape.param.heads) + "x" + std::to_string(shape.param.kv_heads) + "x" +
                                  std::to_string(shape.param.head_dim);
                         });

// A row's bits are a matter of its window alone.
TEST(AttentionBits, DoNotDependOnBatchOrThreads) {
  for (const DType type : {DType::bf16, DType::f32}) {
    const Problem problem = make_problem(type, {33, 290, 1, 64}, 4, 2, 40, 3);
    for (const Isa isa : isas()) {
      ThreadPool one(1);
      ThreadPool two(2);
      Tensor together = make_tensor(type, problem.q.rows(), problem.q.cols());
      attention(isa, Order::forward, one, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, together);
      Tensor threaded = make_tensor(type, problem.q.rows(), problem.q.cols());
      attention(isa, Order::forward, two, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, threaded);
      EXPECT_EQ(std::memcmp(together.data(), threaded.data(), together.bytes()), 0) << isa_name(isa);
      for (size_t w = 0; w + 1 < problem.offsets.size(); ++w) {
        const Problem alone = window_of(problem, w);
        Tensor out = make_tensor(type, alone.q.rows(), alone.q.cols());
        attention(isa, Order::forward, two, alone.q, alone.k, alone.v, alone.offsets, {}, alone.args, out);
        const auto* expected = static_cast<const std::byte*>(together.data()) +
                               problem.offsets[w] * together.stride() * static_cast<int64_t>(dtype_size(type));
        EXPECT_EQ(std::memcmp(out.data(), expected, out.bytes()), 0) << isa_name(isa) << " window " << w;
      }
    }
  }
}

// Nor do they depend on the tokens that follow.
TEST(AttentionBits, DoNotDependOnLaterTokens) {
  for (const DType type : {DType::bf16, DType::f32}) {
    const Problem whole = make_problem(type, {300}, 3, 1, 64, 5);
    for (const Isa isa : isas()) {
      ThreadPool pool(1);
      Tensor all = make_tensor(type, 300, whole.q.cols());
      attention(isa, Order::forward, pool, whole.q, whole.k, whole.v, whole.offsets, {}, whole.args, all);
      for (const int64_t rows : {1, 31, 45, 257}) {
        Problem part = window_of(whole, 0);
        part.offsets = {0, rows};
        Tensor out = make_tensor(type, 300, whole.q.cols());
        attention(isa, Order::forward, pool, part.q, part.k, part.v, part.offsets, {}, part.args, out);
        const size_t bytes = static_cast<size_t>(rows * all.stride()) * dtype_size(type);
        EXPECT_EQ(std::memcmp(out.data(), all.data(), bytes), 0) << isa_name(isa) << " " << rows;
      }
    }
  }
}

TEST(AttentionNan, StaysInItsWindow) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int which : {0, 1, 2}) {
      Problem problem = make_problem(type, {5, 40, 37}, 2, 1, 40, 11);
      Tensor& poisoned = which == 0 ? problem.q : which == 1 ? problem.k : problem.v;
      for (int64_t r = 5; r < 45; ++r) {
        for (int64_t c = 0; c < poisoned.cols(); ++c) set(poisoned, r, c, std::numeric_limits<float>::quiet_NaN());
      }
      for (const Isa isa : isas()) {
        ThreadPool pool(2);
        Tensor out = make_tensor(type, problem.q.rows(), problem.q.cols());
        attention(isa, Order::forward, pool, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, out);
        for (int64_t r = 0; r < out.rows(); ++r) {
          for (int64_t c = 0; c < out.cols(); ++c) {
            ASSERT_EQ(std::isnan(value(out, r, c)), r >= 5 && r < 45) << isa_name(isa) << " " << r << " " << c;
          }
        }
      }
    }
  }
}

TEST(AttentionExtremes, LargeScoresDoNotOverflow) {
  for (const DType type : {DType::bf16, DType::f32}) {
    Problem problem = make_problem(type, {50, 280}, 1, 1, 64, 13);
    problem.args.scale = 100;  // exponents far below -126: probabilities of 0 and 1
    const Reference reference = attend_reference(problem);
    for (const Isa isa : isas()) {
      ThreadPool pool(1);
      Tensor out = make_tensor(type, problem.q.rows(), problem.q.cols());
      attention(isa, Order::forward, pool, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, out);
      EXPECT_LE(deviation(reference, out).worst, type == DType::bf16 ? 0.02 : 0.002) << isa_name(isa);
    }
  }
}

TEST(AttentionEmpty, NoRowsAndEmptyWindows) {
  Problem problem = make_problem(DType::bf16, {4, 3}, 2, 1, 16, 17);
  ThreadPool pool(2);
  Tensor expected = make_tensor(DType::bf16, 7, 32);
  attention(detect_isa(), Order::forward, pool, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args,
            expected);
  Tensor out = make_tensor(DType::bf16, 7, 32);
  const std::vector<int64_t> offsets{0, 0, 4, 4, 7, 7};
  attention(detect_isa(), Order::forward, pool, problem.q, problem.k, problem.v, offsets, {}, problem.args, out);
  EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.bytes()), 0);
  const std::vector<int64_t> none{0};
  attention(detect_isa(), Order::forward, pool, problem.q, problem.k, problem.v, none, {}, problem.args, out);
}

// tests/data/backend/attention_torch.txt: the RMS error of torch's scaled_dot_product_attention on the same inputs.
TEST(AttentionAccuracy, IsThatOfTorch) {
  std::ifstream file(MXLM_TEST_DATA "/backend/attention_torch.txt");
  ASSERT_TRUE(file);
  int cases = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string dtype;
    int64_t rows = 0;
    int heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    uint32_t seed = 0;
    float spread = 0;
    double torch_rms = 0;
    ASSERT_TRUE(fields >> dtype >> rows >> heads >> kv_heads >> head_dim >> seed >> spread >> torch_rms) << line;
    const DType type = dtype == "bf16" ? DType::bf16 : DType::f32;
    const Problem problem = make_problem(type, {rows}, heads, kv_heads, head_dim, seed, spread);
    const Reference reference = attend_reference(problem);
    for (const Isa isa : isas()) {
      const Tensor out = attend(problem, isa);
      double total = 0;
      for (int64_t r = 0; r < out.rows(); ++r) {
        for (int64_t c = 0; c < out.cols(); ++c) {
          const double error = value(out, r, c) - reference.out[static_cast<size_t>(r * out.cols() + c)];
          total += error * error;
        }
      }
      const double rms = std::sqrt(total / static_cast<double>(out.rows() * out.cols()));
      EXPECT_LE(rms, (type == DType::bf16 ? 1.1 : 2.0) * torch_rms) << isa_name(isa) << ": " << line;
    }
    ++cases;
  }
  EXPECT_GE(cases, 4);
}

}  // namespace
}  // namespace mxlm::cpu
