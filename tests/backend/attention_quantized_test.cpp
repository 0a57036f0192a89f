#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "attention_reference.hpp"
#include "backend/cpu/attention.hpp"

namespace mxlm::cpu {
namespace {

OperandSpec parse(const std::string& format, int block, const std::string& rounding) {
  if (format == "none") return std::nullopt;
  const auto element = mx::parse_element(format);
  const auto rule = mx::parse_rounding(rounding);
  if (!element || !rule) throw std::invalid_argument(format + " " + rounding);
  return mx::Format{.element = *element, .block_size = block, .rounding = *rule};
}

// tests/data/backend/attention_mx.{txt,bin}, from microxcaling and torch. Where only Q, K and V are quantised both
// sides quantise the same numbers, and outputs differ by the rounding of sums. P itself carries such differences into
// its quantiser, where one that lies between two steps may go the other way and move its row by a step of one p.
TEST(AttentionQuantized, AgreesWithMicroxcaling) {
  std::ifstream file(MXLM_TEST_DATA "/backend/attention_mx.txt");
  std::ifstream data(MXLM_TEST_DATA "/backend/attention_mx.bin", std::ios::binary);
  ASSERT_TRUE(file && data);
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
    std::string formats[4];
    int block = 0;
    std::string rounding;
    ASSERT_TRUE(fields >> dtype >> rows >> heads >> kv_heads >> head_dim >> seed >> spread >> formats[0] >>
                formats[1] >> formats[2] >> formats[3] >> block >> rounding)
        << line;
    const DType type = dtype == "bf16" ? DType::bf16 : DType::f32;
    Problem problem = make_problem(type, {rows}, heads, kv_heads, head_dim, seed, spread);
    problem.args.qk = {parse(formats[0], block, rounding), parse(formats[1], block, rounding)};
    problem.args.pv = {parse(formats[2], block, rounding), parse(formats[3], block, rounding)};
    std::vector<float> expected(static_cast<size_t>(rows * problem.q.cols()));
    const auto bytes = static_cast<std::streamsize>(expected.size() * sizeof(float));
    ASSERT_TRUE(data.read(reinterpret_cast<char*>(expected.data()), bytes)) << line;
    for (const Isa isa : isas()) {
      const Tensor out = attend(problem, isa);
      int64_t rows_off = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int h = 0; h < heads; ++h) {
          bool off = false;
          const int64_t first = static_cast<int64_t>(h) * head_dim;
          for (int64_t c = first; c < first + head_dim; ++c) {
            const float y = expected[static_cast<size_t>(r * out.cols() + c)];
            // Sums of other order, and for bf16 one step of the output.
            const float tolerance = 2e-6F + (type == DType::bf16 ? 0x1p-7F * std::abs(y) : 0);
            off |= !(std::abs(value(out, r, c) - y) <= tolerance);
          }
          rows_off += off ? 1 : 0;
        }
      }
      EXPECT_LE(rows_off, problem.args.pv.weights ? rows * heads / 50 : 0) << isa_name(isa) << ": " << line;
    }
    ++cases;
  }
  EXPECT_GE(cases, 14);
}

Problem quantized_problem(DType type, const std::vector<int64_t>& windows) {
  Problem problem = make_problem(type, windows, 4, 2, 40, 31);
  problem.args.qk = {parse("mxfp8_e4m3", 32, "even"), parse("mxfp6_e3m2", 32, "even")};
  problem.args.pv = {parse("mxint8", 32, "even"), parse("mxfp4_e2m1", 32, "even")};
  return problem;
}

TEST(AttentionQuantized, BitsDoNotDependOnBatchOrThreads) {
  for (const DType type : {DType::bf16, DType::f32}) {
    const Problem problem = quantized_problem(type, {33, 70, 1, 64});
    for (const Isa isa : isas()) {
      ThreadPool one(1);
      ThreadPool two(2);
      Tensor together = make_tensor(type, problem.q.rows(), problem.q.cols());
      attention(isa, Order::forward, one, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, together);
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

TEST(AttentionQuantized, NanStaysInItsWindow) {
  for (const int which : {0, 1, 2}) {
    Problem problem = quantized_problem(DType::bf16, {5, 40, 37});
    Tensor& poisoned = which == 0 ? problem.q : which == 1 ? problem.k : problem.v;
    for (int64_t r = 5; r < 45; ++r) {
      for (int64_t c = 0; c < poisoned.cols(); ++c) set(poisoned, r, c, std::numeric_limits<float>::quiet_NaN());
    }
    for (const Isa isa : isas()) {
      ThreadPool pool(2);
      Tensor out = make_tensor(DType::bf16, problem.q.rows(), problem.q.cols());
      attention(isa, Order::forward, pool, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, out);
      for (int64_t r = 0; r < out.rows(); ++r) {
        for (int64_t c = 0; c < out.cols(); ++c) {
          ASSERT_EQ(std::isnan(value(out, r, c)), r >= 5 && r < 45) << isa_name(isa) << " " << r << " " << c;
        }
      }
    }
  }
}

// A format whose values are no bfloat16 takes the float32 products.
TEST(AttentionQuantized, FineFormatsApproachThePlainProducts) {
  for (const DType type : {DType::bf16, DType::f32}) {
    Problem problem = make_problem(type, {70}, 2, 1, 24, 33);
    const Reference reference = attend_reference(problem);
    const OperandSpec fine = parse("mxint16", 32, "even");
    problem.args.qk = {fine, fine};
    problem.args.pv = {fine, fine};
    for (const Isa isa : isas()) {
      ThreadPool pool(1);
      Tensor out = make_tensor(type, 70, problem.q.cols());
      attention(isa, Order::forward, pool, problem.q, problem.k, problem.v, problem.offsets, {}, problem.args, out);
      double worst = 0;
      for (int64_t r = 0; r < out.rows(); ++r) {
        for (int64_t c = 0; c < out.cols(); ++c) {
          worst = std::max(worst, std::abs(value(out, r, c) - reference.out[static_cast<size_t>(r * out.cols() + c)]));
        }
      }
      EXPECT_LE(worst, type == DType::bf16 ? 0.02 : 5e-4) << isa_name(isa);
      EXPECT_GT(worst, 1e-6) << "nothing was quantised";
    }
  }
}

}  // namespace
}  // namespace mxlm::cpu
