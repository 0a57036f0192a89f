// What attention does beyond plain causal attention: windows of keys, soft caps, ALiBi slopes, sinks, padding, and
// heads that lie apart.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "attention_reference.hpp"
#include "backend/cpu/attention.hpp"

namespace mxlm::cpu {
namespace {

struct Features {
  const char* name;
  int64_t window = 0;
  float softcap = 0;
  bool slopes = false, sinks = false, keys = false, strides = false;
};

const std::vector<Features> kFeatures{
    {.name = "window1", .window = 1},
    {.name = "window7", .window = 7},
    {.name = "window32", .window = 32},
    {.name = "window100", .window = 100},
    {.name = "window128", .window = 128},
    {.name = "window_wider_than_all", .window = 1000},
    {.name = "softcap", .softcap = 2},
    {.name = "slopes", .slopes = true},
    {.name = "sinks", .sinks = true},
    {.name = "keys", .keys = true},
    {.name = "strides", .strides = true},
    {.name = "window_sinks", .window = 33, .sinks = true},
    {.name = "window_softcap", .window = 60, .softcap = 5, .strides = true},
    {.name = "slopes_keys", .slopes = true, .keys = true},
    {.name = "all", .window = 20, .softcap = 3, .slopes = true, .sinks = true, .keys = true, .strides = true},
};

// Holds what the spans of a problem's arguments point to.
struct FeatureProblem {
  Problem problem;
  std::vector<float> slopes, sinks;

  FeatureProblem(const Features& f, DType type, const std::vector<int64_t>& windows, int heads, int kv_heads,
                 int head_dim, uint32_t seed, float spread = 1)
      : problem(make_problem(type, windows, heads, kv_heads, head_dim + (f.strides ? 6 : 0), seed, spread)) {
    AttentionArgs& args = problem.args;
    args.head_dim = head_dim;
    args.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    if (f.strides) args.q_head_stride = args.kv_head_stride = head_dim + 6;
    args.sliding_window = f.window;
    args.softcap = f.softcap;
    for (int h = 0; h < heads; ++h) {
      if (f.slopes) slopes.push_back(std::exp2(-static_cast<float>(h + 1)));
      if (f.sinks) sinks.push_back(static_cast<float>(h) * 2.5F - 1);
    }
    args.slopes = slopes;
    args.sinks = sinks;
    for (size_t w = 0; f.keys && w < windows.size(); ++w) {
      problem.keys.push_back(static_cast<int32_t>(std::max<int64_t>(1, windows[w] - 1 - static_cast<int64_t>(w) * 6)));
    }
  }
  FeatureProblem(const FeatureProblem&) = delete;
  FeatureProblem& operator=(const FeatureProblem&) = delete;
};

const std::vector<int64_t> kWindows{1, 33, 170};

class AttentionFeatures : public testing::TestWithParam<Features> {};
INSTANTIATE_TEST_SUITE_P(Features, AttentionFeatures, testing::ValuesIn(kFeatures),
                         [](const auto& which) { return which.param.name; });

TEST_P(AttentionFeatures, AgreeWithFloat64) {
  const bool all = std::string(GetParam().name) == "all";
  for (const int head_dim : all ? std::vector<int>{8, 10, 80, 256} : std::vector<int>{10, 80}) {
    for (const DType type : {DType::bf16, DType::f32}) {
      const FeatureProblem fp(GetParam(), type, kWindows, 2, head_dim == 10 ? 1 : 2, head_dim, 7);
      const Reference reference = attend_reference(fp.problem);
      for (const Isa isa : isas()) {
        for (const Order order : {Order::forward, Order::reversed}) {
          if (order == Order::reversed && head_dim != 10) continue;
          const Deviation d = deviation(reference, attend(fp.problem, isa, 2, order));
          // As for plain attention: P and the output are each rounded by at most 2^-8. In float32 a score is off by
          // 2^-24 of |slope| * distance too, 100 at most.
          const double unit = type == DType::bf16 ? 0x1p-8 : 0x1p-24;
          const double bound = type == DType::bf16 ? 2.05 : GetParam().slopes ? 120 : 40;
          EXPECT_LE(d.worst, bound * unit) << isa_name(isa) << " " << dtype_name(type) << " " << head_dim;
          EXPECT_LE(d.rms, (type == DType::bf16 ? 0.4 : 4) * unit)
              << isa_name(isa) << " " << dtype_name(type) << " " << head_dim;
        }
      }
    }
  }
}

// Through the route that quantises, with a format so fine that little of it shows.
TEST_P(AttentionFeatures, AgreeWithFloat64WhereQuantised) {
  const OperandSpec fine =
      mx::Format{.element = mx::parse_element("mxint16").value_or(mx::ElementFormat{}), .block_size = 32};
  for (const int head_dim : {10, 40}) {
    for (const DType type : {DType::bf16, DType::f32}) {
      FeatureProblem fp(GetParam(), type, kWindows, 2, 1, head_dim, 7);
      fp.problem.args.qk = {fine, std::nullopt};
      fp.problem.args.pv = {std::nullopt, fine};
      const Reference reference = attend_reference(fp.problem);
      for (const Isa isa : isas()) {
        const Tensor out = attend(fp.problem, isa);
        double total = 0;
        for (int64_t r = 0; r < out.rows(); ++r) {
          for (int64_t c = 0; c < out.cols(); ++c) {
            total += std::pow(value(out, r, c) - reference.out[static_cast<size_t>(r * out.cols() + c)], 2);
          }
        }
        // Steps of 2^-13 of values up to 4, and in bf16 those of P and of the output.
        EXPECT_LE(std::sqrt(total / static_cast<double>(out.rows() * out.cols())), type == DType::bf16 ? 2e-3 : 1e-4)
            << isa_name(isa) << " " << head_dim;
      }
    }
  }
}

TEST_P(AttentionFeatures, BitsDependOnTheWindowAlone) {
  for (const bool quantised : {false, true}) {
    for (const DType type : {DType::bf16, DType::f32}) {
      FeatureProblem fp(GetParam(), type, {33, 290, 1, 64}, 2, 1, 40, 3);
      Problem& whole = fp.problem;
      const OperandSpec fp8 = mx::Format{.element = mx::parse_element("mxfp8_e4m3").value_or(mx::ElementFormat{})};
      if (quantised) whole.args.qk = whole.args.pv = {fp8, fp8};
      for (const Isa isa : isas()) {
        const Tensor one = attend(whole, isa, 1);
        const Tensor two = attend(whole, isa, 2);
        EXPECT_EQ(std::memcmp(one.data(), two.data(), one.bytes()), 0) << isa_name(isa);
        for (size_t w = 0; w + 1 < whole.offsets.size(); ++w) {
          const Tensor out = attend(window_of(whole, w), isa);
          const auto* expected = static_cast<const std::byte*>(one.data()) +
                                 whole.offsets[w] * one.stride() * static_cast<int64_t>(dtype_size(type));
          EXPECT_EQ(std::memcmp(out.data(), expected, out.bytes()), 0) << isa_name(isa) << " window " << w;
        }
      }
    }
  }
}

TEST_P(AttentionFeatures, PaddingChangesNoBitOfTheRest) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int32_t real : {1, 31, 45, 129, 257}) {
      FeatureProblem fp(GetParam(), type, {300}, 1, 1, 64, 5);
      Problem& padded = fp.problem;
      padded.keys = {real};
      Problem bare = window_of(padded, 0);
      bare.offsets = {0, real};
      bare.keys = {};
      for (const Isa isa : isas()) {
        const Tensor with = attend(padded, isa);
        const Tensor without = attend(bare, isa);
        const size_t bytes = static_cast<size_t>(real * with.stride()) * dtype_size(type);
        EXPECT_EQ(std::memcmp(with.data(), without.data(), bytes), 0) << isa_name(isa) << " " << real;
      }
    }
  }
}

TEST(AttentionPadding, QueriesThatSeeNothingGiveZeros) {
  const Features f{.name = "", .window = 4, .keys = true};
  for (const DType type : {DType::bf16, DType::f32}) {
    FeatureProblem fp(f, type, {200, 20}, 2, 1, 24, 9);
    fp.problem.keys = {50, 3};
    for (const Isa isa : isas()) {
      const Tensor out = attend(fp.problem, isa);
      for (int64_t r = 0; r < 220; ++r) {
        const bool sees_something = r < 200 ? r - 3 < 50 : r - 200 - 3 < 3;
        for (int64_t c = 0; c < out.cols(); ++c) {
          ASSERT_EQ(value(out, r, c) != 0, sees_something) << isa_name(isa) << " row " << r;
        }
      }
    }
  }
}

TEST(AttentionSinks, OneThatDwarfsAllScoresLeavesNothing) {
  const Features f{.name = "", .sinks = true};
  for (const DType type : {DType::bf16, DType::f32}) {
    FeatureProblem fp(f, type, {150}, 2, 1, 24, 9);
    fp.sinks = {300, -300};  // the second counts for nothing
    fp.problem.args.sinks = fp.sinks;
    Problem plain = window_of(fp.problem, 0);
    plain.args.sinks = {};
    for (const Isa isa : isas()) {
      const Tensor out = attend(fp.problem, isa);
      const Tensor without = attend(plain, isa);
      for (int64_t r = 0; r < 150; ++r) {
        for (int64_t c = 0; c < 24; ++c) {
          EXPECT_EQ(value(out, r, c), 0) << isa_name(isa);
          EXPECT_EQ(value(out, r, 24 + c), value(without, r, 24 + c)) << isa_name(isa);
        }
      }
    }
  }
}

// q, k and v as columns of one matrix, by head, as some projections make them.
TEST(AttentionViews, FusedProjectionsNeedNoCopies) {
  MXLM_CPU_ONLY("looks into host memory");
  constexpr int kHeads = 3;
  constexpr int kDim = 40;
  for (const DType type : {DType::bf16, DType::f32}) {
    Problem apart = make_problem(type, {70, 5}, kHeads, kHeads, kDim, 19);
    Tensor fused = make_tensor(type, 75, 3 * kHeads * kDim);
    for (int64_t r = 0; r < 75; ++r) {
      for (int64_t c = 0; c < kHeads * kDim; ++c) {
        const int64_t column = c / kDim * 3 * kDim + c % kDim;
        set(fused, r, column, value(apart.q, r, c));
        set(fused, r, column + kDim, value(apart.k, r, c));
        set(fused, r, column + 2 * kDim, value(apart.v, r, c));
      }
    }
    AttentionArgs args = apart.args;
    args.q_head_stride = args.kv_head_stride = 3 * kDim;
    const int64_t width = fused.cols() - 2 * kDim;
    for (const Isa isa : isas()) {
      const Tensor expected = attend(apart, isa);
      ThreadPool pool(2);
      Tensor out = make_tensor(type, 75, kHeads * kDim);
      attention(isa, Order::forward, pool, fused.columns(0, width), fused.columns(kDim, width),
                fused.columns(2 * kDim, width), apart.offsets, {}, args, out);
      EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.bytes()), 0) << isa_name(isa);
    }
  }
}

// tests/data/backend/attention_eager.{txt,bin}: the eager attention of transformers' models, in float32.
TEST(AttentionGoldens, AgreeWithTransformers) {
  std::ifstream file(MXLM_TEST_DATA "/backend/attention_eager.txt");
  std::ifstream data(MXLM_TEST_DATA "/backend/attention_eager.bin", std::ios::binary);
  ASSERT_TRUE(file && data);
  const auto read = [&](size_t count) {
    std::vector<float> values(count);
    data.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(float)));
    return values;
  };
  int cases = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string model;
    int64_t rows = 0, window = 0;
    int heads = 0, kv_heads = 0, head_dim = 0, slopes = 0, sinks = 0, keys = 0;
    uint32_t seed = 0;
    float spread = 0, scale = 0, softcap = 0;
    ASSERT_TRUE(fields >> model >> rows >> heads >> kv_heads >> head_dim >> seed >> spread >> scale >> softcap >>
                window >> keys >> slopes >> sinks)
        << line;
    Problem problem = make_problem(DType::f32, {rows}, heads, kv_heads, head_dim, seed, spread);
    const std::vector<float> slope_values = read(static_cast<size_t>(slopes));
    const std::vector<float> sink_values = read(static_cast<size_t>(sinks));
    problem.args.scale = scale;
    problem.args.softcap = softcap;
    problem.args.sliding_window = window;
    problem.args.slopes = slope_values;
    problem.args.sinks = sink_values;
    if (keys > 0) problem.keys = {keys};
    const std::vector<float> expected = read(static_cast<size_t>(rows * problem.q.cols()));
    ASSERT_TRUE(data) << line;
    const Reference reference = attend_reference(problem);
    for (const Isa isa : isas()) {
      const Tensor out = attend(problem, isa);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < out.cols(); ++c) {
          const auto i = static_cast<size_t>(r * out.cols() + c);
          // Both are float32 sums of that many terms.
          ASSERT_NEAR(value(out, r, c), expected[i], 100 * 0x1p-24 * reference.magnitude[i])
              << isa_name(isa) << " " << r << " " << c << ": " << line;
        }
      }
    }
    ++cases;
  }
  EXPECT_EQ(cases, 6);
}

}  // namespace
}  // namespace mxlm::cpu
