// Attention on the GPU against float64 and against the CPU.

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

#include "../backend/attention_reference.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

using cpu::attend_reference;
using cpu::Deviation;
using cpu::deviation;
using cpu::make_problem;
using cpu::make_tensor;
using cpu::Problem;
using cpu::Reference;
using cpu::set;
using cpu::value;
using cpu::window_of;

class CudaAttention : public CudaTest {};

HostMatrix host(const Tensor& t) {
  return {.type = t.dtype(),
          .rows = t.rows(),
          .cols = t.cols(),
          .stride = t.stride(),
          .data = static_cast<const std::byte*>(t.data())};
}

Batch batch_of(const Problem& p) {
  Batch batch;
  batch.tokens.resize(static_cast<size_t>(p.q.rows()));
  batch.offsets = p.offsets;
  batch.keys = p.keys;
  return batch;
}

Tensor on_host(Backend& backend, const Tensor& result) {
  const std::vector<float> values = values_of(backend, result);
  Tensor out = make_tensor(result.dtype(), result.rows(), result.cols());
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t c = 0; c < out.cols(); ++c) set(out, r, c, values[static_cast<size_t>(r * out.cols() + c)]);
  }
  return out;
}

/// The output in the model's dtype, in host memory.
Tensor attend(Backend& backend, const Problem& p) {
  const Tensor q = backend.upload(host(p.q), p.q.dtype());
  const Tensor k = backend.upload(host(p.k), p.q.dtype());
  const Tensor v = backend.upload(host(p.v), p.q.dtype());
  Operand out{.type = {.spec = std::nullopt, .storage = p.q.dtype()}};
  backend.attention(q, k, v, batch_of(p), p.args, {&out, 1});
  return on_host(backend, out.values);
}

bool same_bits(const Tensor& a, int64_t a_row, const Tensor& b, int64_t b_row, int64_t rows) {
  const auto size = static_cast<int64_t>(dtype_size(a.dtype()));
  return std::memcmp(static_cast<const std::byte*>(a.data()) + a_row * a.stride() * size,
                     static_cast<const std::byte*>(b.data()) + b_row * b.stride() * size,
                     static_cast<size_t>(rows * a.stride() * size)) == 0;
}

void expect_windows_alone_give_the_same_bits(Backend& backend, const Problem& whole, const std::string& what) {
  const Tensor together = attend(backend, whole);
  for (size_t w = 0; w + 1 < whole.offsets.size(); ++w) {
    const Tensor alone = attend(backend, window_of(whole, w));
    EXPECT_TRUE(same_bits(together, whole.offsets[w], alone, 0, alone.rows())) << what << ", window " << w;
  }
}

// The bounds of the CPU's tests. bf16: P and the output are each rounded by at most 2^-8, and the sum is of P before
// rounding.
void expect_accurate(const Reference& reference, const Tensor& out, const std::string& what, double worst_f32 = 40) {
  const bool bf16 = out.dtype() == DType::bf16;
  const double unit = bf16 ? 0x1p-8 : 0x1p-24;
  const Deviation d = deviation(reference, out);
  EXPECT_LE(d.worst, (bf16 ? 2.05 : worst_f32) * unit) << what << " " << dtype_name(out.dtype());
  EXPECT_LE(d.rms, (bf16 ? 0.4 : 4) * unit) << what << " " << dtype_name(out.dtype());
}

struct Shape {
  int heads, kv_heads, head_dim;
};

const std::vector<Shape> kShapes{{2, 2, 64}, {4, 2, 32}, {2, 1, 16},  {3, 1, 20},  {2, 1, 80},
                                 {3, 3, 7},  {2, 1, 96}, {2, 1, 128}, {1, 1, 256}, {2, 1, 1}};

TEST_F(CudaAttention, AgreesWithFloat64) {
  for (const auto& [heads, kv_heads, head_dim] : kShapes) {
    for (const DType type : {DType::bf16, DType::f32}) {
      const Problem problem = make_problem(type, {1, 2, 17, 63, 64, 65, 130}, heads, kv_heads, head_dim, 7);
      expect_accurate(attend_reference(problem), attend(gpu(), problem), "head_dim " + std::to_string(head_dim));
    }
  }
}

struct WindowedShape {
  Shape shape;
  int64_t window;
};

// Windows of the lengths that cuDNN takes in bfloat16.
TEST_F(CudaAttention, LongWindowsAgreeWithFloat64) {
  const std::vector<WindowedShape> cases{{{2, 1, 64}, 0}, {{2, 1, 64}, 100}, {{1, 1, 128}, 0}, {{1, 1, 80}, 100}};
  for (const auto& [shape, window] : cases) {
    for (const DType type : {DType::bf16, DType::f32}) {
      Problem problem = make_problem(type, {512, 256}, shape.heads, shape.kv_heads, shape.head_dim, 9);
      problem.args.sliding_window = window;
      expect_accurate(attend_reference(problem), attend(gpu(), problem),
                      "head_dim " + std::to_string(shape.head_dim) + " window " + std::to_string(window));
    }
  }
}

// In float32, at most twice the error of the CPU's plain float32.
TEST_F(CudaAttention, Float32IsNoTF32) {
  for (const float spread : {1.0F, 4.0F}) {
    for (const int head_dim : {64, 128}) {
      const Problem problem = make_problem(DType::f32, {512, 77}, 2, 1, head_dim, 21, spread);
      const Reference reference = attend_reference(problem);
      const Deviation ours = deviation(reference, attend(gpu(), problem));
      const Deviation plain = deviation(reference, attend(cpu(), problem));
      EXPECT_LE(ours.rms, 2 * plain.rms) << "head_dim " << head_dim << " spread " << spread;
      EXPECT_LE(ours.worst, 3 * plain.worst) << "head_dim " << head_dim << " spread " << spread;
    }
  }
}

TEST_F(CudaAttention, BitsDependOnTheWindowAlone) {
  for (const DType type : {DType::bf16, DType::f32}) {
    const Problem problem = make_problem(type, {33, 290, 1, 64, 256, 256, 64}, 4, 2, 40, 3);
    expect_windows_alone_give_the_same_bits(gpu(), problem, std::string(dtype_name(type)));
  }
}

// Five windows in one call of cuDNN and one window in a call of its own.
TEST_F(CudaAttention, BitsDoNotDependOnTheNumberOfWindows) {
  for (const auto& [shape, window] :
       std::vector<WindowedShape>{{{8, 2, 128}, 0}, {{8, 2, 128}, 130}, {{8, 8, 64}, 0}}) {
    const std::vector<int64_t> lengths(5, shape.head_dim == 64 ? 320 : 512);
    Problem problem = make_problem(DType::bf16, lengths, shape.heads, shape.kv_heads, shape.head_dim, 5);
    problem.args.sliding_window = window;
    expect_windows_alone_give_the_same_bits(gpu(), problem, "head_dim " + std::to_string(shape.head_dim));
  }
}

TEST_F(CudaAttention, BitsDoNotDependOnLaterTokens) {
  for (const DType type : {DType::bf16, DType::f32}) {
    const Problem whole = make_problem(type, {300}, 3, 1, 64, 5);
    const Tensor all = attend(gpu(), whole);
    for (const int64_t rows : {1, 31, 65, 257}) {
      Problem part = window_of(whole, 0);
      part.offsets = {0, rows};
      EXPECT_TRUE(same_bits(attend(gpu(), part), 0, all, 0, rows)) << dtype_name(type) << " " << rows;
    }
  }
}

struct Features {
  const char* name;
  int64_t window = 0;
  float softcap = 0;
  bool slopes = false, sinks = false, keys = false, strides = false;
};

const std::vector<Features> kFeatures{
    {.name = "window1", .window = 1},
    {.name = "window64", .window = 64},
    {.name = "window100", .window = 100},
    {.name = "window_wider_than_all", .window = 1000},
    {.name = "softcap", .softcap = 2},
    {.name = "slopes", .slopes = true},
    {.name = "sinks", .sinks = true},
    {.name = "keys", .keys = true},
    {.name = "strides", .strides = true},
    {.name = "window_softcap", .window = 60, .softcap = 5, .strides = true},
    {.name = "all", .window = 20, .softcap = 3, .slopes = true, .sinks = true, .keys = true, .strides = true},
};

// Holds what the spans of a problem's arguments point to.
struct FeatureProblem {
  Problem problem;
  std::vector<float> slopes, sinks;

  FeatureProblem(const Features& f, DType type, const std::vector<int64_t>& windows, int heads, int kv_heads,
                 int head_dim, uint32_t seed)
      : problem(make_problem(type, windows, heads, kv_heads, head_dim + (f.strides ? 6 : 0), seed)) {
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

TEST_F(CudaAttention, FeaturesAgreeWithFloat64) {
  for (const Features& f : kFeatures) {
    const bool all = std::string(f.name) == "all";
    for (const int head_dim : all ? std::vector<int>{8, 10, 80, 256} : std::vector<int>{10, 80}) {
      for (const DType type : {DType::bf16, DType::f32}) {
        const FeatureProblem fp(f, type, {1, 33, 170}, 2, head_dim == 10 ? 1 : 2, head_dim, 7);
        // In float32 a score is off by 2^-24 of |slope| * distance too, 100 at most.
        expect_accurate(attend_reference(fp.problem), attend(gpu(), fp.problem),
                        f.name + (" head_dim " + std::to_string(head_dim)), f.slopes ? 120 : 40);
      }
    }
  }
}

OperandSpec format(const std::string& name, int block = 32, mx::Rounding rounding = mx::Rounding::even) {
  const auto f = mx::parse_format(name);
  if (!f) throw std::invalid_argument(name);
  mx::Format out = *f;
  if (out.scaling == mx::Scaling::block) out.block_size = block;
  out.rounding = rounding;
  return out;
}

TEST_F(CudaAttention, FeaturesChangeNoBitOfOtherWindows) {
  for (const Features& f : kFeatures) {
    for (const bool quantised : {false, true}) {
      for (const DType type : {DType::bf16, DType::f32}) {
        FeatureProblem fp(f, type, {33, 130, 1, 64}, 2, 1, 40, 3);
        if (quantised) fp.problem.args.qk = fp.problem.args.pv = {format("mxfp8_e4m3"), format("mxfp8_e4m3")};
        expect_windows_alone_give_the_same_bits(gpu(), fp.problem, f.name);
      }
    }
  }
}

TEST_F(CudaAttention, PaddingChangesNoBitOfTheRest) {
  for (const Features& f : kFeatures) {
    for (const DType type : {DType::bf16, DType::f32}) {
      for (const int32_t real : {1, 45, 129}) {
        FeatureProblem fp(f, type, {150}, 1, 1, 64, 5);
        Problem& padded = fp.problem;
        padded.keys = {real};
        Problem bare = window_of(padded, 0);
        bare.offsets = {0, real};
        bare.keys = {};
        EXPECT_TRUE(same_bits(attend(gpu(), padded), 0, attend(gpu(), bare), 0, real)) << f.name << " " << real;
      }
    }
  }
}

TEST_F(CudaAttention, QueriesThatSeeNothingGiveZeros) {
  for (const bool quantised : {false, true}) {
    for (const DType type : {DType::bf16, DType::f32}) {
      FeatureProblem fp({.name = "", .window = 4, .keys = true}, type, {200, 20}, 2, 1, 24, 9);
      fp.problem.keys = {50, 3};
      if (quantised) fp.problem.args.qk = {format("mxint8"), format("mxint8")};
      const Tensor out = attend(gpu(), fp.problem);
      for (int64_t r = 0; r < 220; ++r) {
        const bool sees_something = r < 200 ? r - 3 < 50 : r - 200 - 3 < 3;
        for (int64_t c = 0; c < out.cols(); ++c) ASSERT_EQ(value(out, r, c) != 0, sees_something) << "row " << r;
      }
    }
  }
}

TEST_F(CudaAttention, ASinkThatDwarfsAllScoresLeavesNothing) {
  for (const DType type : {DType::bf16, DType::f32}) {
    FeatureProblem fp({.name = "", .sinks = true}, type, {150}, 2, 1, 24, 9);
    fp.sinks = {300, -300};  // the second counts for nothing
    fp.problem.args.sinks = fp.sinks;
    Problem plain = window_of(fp.problem, 0);
    plain.args.sinks = {};
    const Tensor out = attend(gpu(), fp.problem);
    const Tensor without = attend(gpu(), plain);
    for (int64_t r = 0; r < 150; ++r) {
      for (int64_t c = 0; c < 24; ++c) {
        EXPECT_EQ(value(out, r, c), 0);
        EXPECT_EQ(value(out, r, 24 + c), value(without, r, 24 + c));
      }
    }
  }
}

// q, k and v as columns of one matrix, by head, as some projections make them.
TEST_F(CudaAttention, FusedProjectionsNeedNoCopies) {
  constexpr int kHeads = 3;
  for (const int dim : {40, 10}) {
    for (const DType type : {DType::bf16, DType::f32}) {
      Problem apart = make_problem(type, {70, 5, 256}, kHeads, kHeads, dim, 19);
      const int64_t rows = apart.q.rows();
      Tensor fused = make_tensor(type, rows, int64_t{3} * kHeads * dim);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < int64_t{kHeads} * dim; ++c) {
          const int64_t column = c / dim * 3 * dim + c % dim;
          set(fused, r, column, value(apart.q, r, c));
          set(fused, r, column + dim, value(apart.k, r, c));
          set(fused, r, column + 2 * dim, value(apart.v, r, c));
        }
      }
      AttentionArgs args = apart.args;
      args.q_head_stride = args.kv_head_stride = 3 * dim;
      const int64_t width = fused.cols() - 2 * dim;
      const Tensor device = gpu().upload(host(fused), type);
      Operand out{.type = {.spec = std::nullopt, .storage = type}};
      gpu().attention(device.columns(0, width), device.columns(dim, width), device.columns(2 * dim, width),
                      batch_of(apart), args, {&out, 1});
      const Tensor expected = attend(gpu(), apart);
      const Tensor result = on_host(gpu(), out.values);
      expect_accurate(attend_reference(apart), result, "fused, head_dim " + std::to_string(dim));
      // Windows of our own kernel: the same bits, however the rows are read.
      EXPECT_TRUE(same_bits(result, 0, expected, 0, 75)) << dim << " " << dtype_name(type);
    }
  }
}

TEST_F(CudaAttention, LargeScoresDoNotOverflow) {
  for (const DType type : {DType::bf16, DType::f32}) {
    Problem problem = make_problem(type, {50, 256}, 1, 1, 64, 13);
    problem.args.scale = 100;  // exponents far below -126: probabilities of 0 and 1
    EXPECT_LE(deviation(attend_reference(problem), attend(gpu(), problem)).worst, type == DType::bf16 ? 0.02 : 0.002);
  }
}

TEST_F(CudaAttention, NanStaysInItsWindow) {
  for (const bool quantised : {false, true}) {
    for (const DType type : {DType::bf16, DType::f32}) {
      for (const int which : {0, 1, 2}) {
        for (const int64_t length : {40, 256}) {
          Problem problem = make_problem(type, {5, length, length, 37}, 2, 1, 40, 11);
          if (quantised) {
            problem.args.qk = {format("mxfp8_e4m3"), format("mxfp6_e3m2")};
            problem.args.pv = {format("mxint8"), format("mxfp4_e2m1")};
          }
          Tensor& poisoned = which == 0 ? problem.q : which == 1 ? problem.k : problem.v;
          for (int64_t r = 5; r < 5 + length; ++r) {
            for (int64_t c = 0; c < poisoned.cols(); ++c) {
              set(poisoned, r, c, std::numeric_limits<float>::quiet_NaN());
            }
          }
          const Tensor out = attend(gpu(), problem);
          for (int64_t r = 0; r < out.rows(); ++r) {
            for (int64_t c = 0; c < out.cols(); ++c) {
              ASSERT_EQ(std::isnan(value(out, r, c)), r >= 5 && r < 5 + length)
                  << dtype_name(type) << " " << which << " " << r << " " << c;
            }
          }
        }
      }
    }
  }
}

TEST_F(CudaAttention, NoRowsAndEmptyWindows) {
  Problem problem = make_problem(DType::bf16, {4, 3}, 2, 1, 16, 17);
  const Tensor expected = attend(gpu(), problem);
  problem.offsets = {0, 0, 4, 4, 7, 7};
  EXPECT_TRUE(same_bits(attend(gpu(), problem), 0, expected, 0, 7));
  const Problem none = make_problem(DType::bf16, {}, 2, 1, 16, 17);
  EXPECT_EQ(attend(gpu(), none).rows(), 0);
}

// What consumers ask for is made of the output.
TEST_F(CudaAttention, GivesTheOperandsThatAreAskedFor) {
  for (const int head_dim : {32, 20}) {
    const Problem p = make_problem(DType::bf16, {40, 9}, 2, 1, head_dim, 23);
    const Tensor q = gpu().upload(host(p.q), DType::bf16);
    const Tensor k = gpu().upload(host(p.k), DType::bf16);
    const Tensor v = gpu().upload(host(p.v), DType::bf16);
    const std::vector<OperandType> types{{.spec = std::nullopt, .storage = DType::bf16},
                                         {.spec = format("mxfp4_e2m1"), .storage = DType::bf16},
                                         {.spec = format("mxint16"), .storage = DType::f32}};
    std::vector<Operand> outs;
    for (const OperandType& type : types) outs.push_back({.type = type});
    gpu().attention(q, k, v, batch_of(p), p.args, outs);
    const Tensor plain = attend(gpu(), p);
    const Tensor device = gpu().upload(host(plain), DType::bf16);
    for (size_t i = 0; i < types.size(); ++i) {
      Operand expected{.type = types[i]};
      gpu().operands(device, p.offsets, {&expected, 1});
      EXPECT_EQ(different(values_of(gpu(), outs[i].values), values_of(gpu(), expected.values)), 0U) << i;
    }
  }
}

// Rows of a head that differ by more than sums of another order, and one step of the output's dtype.
int64_t rows_off(const Problem& p, const Tensor& out, const std::vector<float>& expected) {
  int64_t off = 0;
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int h = 0; h < p.args.heads; ++h) {
      bool is_off = false;
      const int64_t first = static_cast<int64_t>(h) * p.args.head_dim;
      for (int64_t c = first; c < first + p.args.head_dim; ++c) {
        const float y = expected[static_cast<size_t>(r * out.cols() + c)];
        const float tolerance = 2e-6F + (out.dtype() == DType::bf16 ? 0x1p-7F * std::abs(y) : 0);
        is_off |= !(std::abs(value(out, r, c) - y) <= tolerance);
      }
      off += is_off ? 1 : 0;
    }
  }
  return off;
}

// tests/data/backend/attention_mx.{txt,bin}, from microxcaling and torch, as the CPU's test reads them: where P is
// rounded to bfloat16 or quantised, one that lies between two steps may go the other way and move its row.
TEST_F(CudaAttention, QuantisedAgreesWithMicroxcaling) {
  std::ifstream file(MXLM_TEST_DATA "/backend/attention_mx.txt");
  std::ifstream data(MXLM_TEST_DATA "/backend/attention_mx.bin", std::ios::binary);
  ASSERT_TRUE(file && data);
  int cases = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string dtype, rounding;
    int64_t rows = 0;
    int heads = 0, kv_heads = 0, head_dim = 0, block = 0;
    uint32_t seed = 0;
    float spread = 0;
    std::string formats[4];
    ASSERT_TRUE(fields >> dtype >> rows >> heads >> kv_heads >> head_dim >> seed >> spread >> formats[0] >>
                formats[1] >> formats[2] >> formats[3] >> block >> rounding)
        << line;
    const auto rule = mx::parse_rounding(rounding);
    ASSERT_TRUE(rule) << line;
    const auto side = [&](const std::string& name) {
      return name == "none" ? OperandSpec() : format(name, block, *rule);
    };
    const DType type = dtype == "bf16" ? DType::bf16 : DType::f32;
    Problem problem = make_problem(type, {rows}, heads, kv_heads, head_dim, seed, spread);
    problem.args.qk = {side(formats[0]), side(formats[1])};
    problem.args.pv = {side(formats[2]), side(formats[3])};
    std::vector<float> expected(static_cast<size_t>(rows * problem.q.cols()));
    const auto bytes = static_cast<std::streamsize>(expected.size() * sizeof(float));
    ASSERT_TRUE(data.read(reinterpret_cast<char*>(expected.data()), bytes)) << line;
    const bool rounds = type == DType::bf16 || problem.args.pv.weights;
    EXPECT_LE(rows_off(problem, attend(gpu(), problem), expected), rounds ? rows * heads / 50 : 0) << line;
    ++cases;
  }
  EXPECT_GE(cases, 14);
}

std::vector<float> floats_of(const Tensor& t) {
  std::vector<float> out;
  for (int64_t r = 0; r < t.rows(); ++r) {
    for (int64_t c = 0; c < t.cols(); ++c) out.push_back(value(t, r, c));
  }
  return out;
}

// Formats, rules and stages that microxcaling has not, and all features, beside the CPU.
TEST_F(CudaAttention, QuantisedAgreesWithTheCpu) {
  auto with_rule = [](const std::string& name, int block, mx::ScaleRule rule) {
    OperandSpec spec = format(name, block);
    spec->rule = rule;
    return spec;
  };
  struct Case {
    const char* name;
    ProductSpec qk, pv;
  };
  const std::vector<Case> cases{
      {"block 0", {format("mxfp8_e4m3", 0), format("mxfp8_e4m3", 0)}, {{}, format("mxfp8_e5m2", 0)}},
      {"mse", {with_rule("mxfp4_e2m1", 32, mx::ScaleRule::mse), {}}, {{}, with_rule("mxint8", 16, mx::ScaleRule::mse)}},
      {"rceil", {with_rule("mxfp6_e2m3", 8, mx::ScaleRule::rceil), format("mxint4")}, {{}, {}}},
      {"stages", {format("bf16"), format("fp8_e4m3_unscaled")}, {{}, format("fp8_e5m2_own_exponent")}},
      {"fine", {format("mxint16"), format("mxint16")}, {{}, format("mxint16")}},
  };
  for (const Case& c : cases) {
    for (const DType type : {DType::bf16, DType::f32}) {
      Problem problem = make_problem(type, {1, 37, 90}, 4, 2, 40, 31);
      problem.args.qk = c.qk;
      problem.args.pv = c.pv;
      // Only Q, K and V are quantised: both sides quantise the same numbers. bfloat16 rounds P, too.
      EXPECT_LE(rows_off(problem, attend(gpu(), problem), floats_of(attend(cpu(), problem))),
                type == DType::bf16 ? 128 * 4 / 50 : 0)
          << c.name << " " << dtype_name(type);
    }
  }
  for (const Features& f : kFeatures) {
    for (const DType type : {DType::bf16, DType::f32}) {
      FeatureProblem fp(f, type, {1, 33, 130}, 2, 1, 24, 3);
      fp.problem.args.qk = {format("mxfp6_e3m2"), format("mxfp8_e4m3")};
      fp.problem.args.pv = {format("mxint8"), format("mxfp8_e4m3")};
      EXPECT_LE(rows_off(fp.problem, attend(gpu(), fp.problem), floats_of(attend(cpu(), fp.problem))), 164 * 2 / 50)
          << f.name << " " << dtype_name(type);
    }
  }
}

// Every operation rounded to bfloat16: sums and exponentials on the edge between two may go either way.
TEST_F(CudaAttention, Bfloat16OperationsAgreeWithTheCpu) {
  for (const Features& f : kFeatures) {
    for (const bool quantised : {false, true}) {
      for (const DType type : {DType::bf16, DType::f32}) {
        FeatureProblem fp(f, type, {1, 33, 130}, 2, 1, 24, 3);
        fp.problem.args.arithmetic = Arithmetic::bf16_rounded;
        if (quantised)
          fp.problem.args.qk = {format("mxfp8_e4m3"), format("mxfp8_e4m3"), std::nullopt, Arithmetic::bf16_rounded};
        if (type == DType::f32) {
          for (Tensor* t : {&fp.problem.q, &fp.problem.k, &fp.problem.v}) {
            for (int64_t r = 0; r < t->rows(); ++r) {
              for (int64_t c = 0; c < t->cols(); ++c) set(*t, r, c, to_float(to_bfloat16(value(*t, r, c))));
            }
          }
        }
        const Tensor ours = attend(gpu(), fp.problem);
        const Tensor theirs = attend(cpu(), fp.problem);
        EXPECT_LE(relative_error(floats_of(ours), floats_of(theirs)), 2e-3) << f.name << " " << dtype_name(type);
        // The outputs are bfloat16 values: most are the same ones.
        EXPECT_LE(different(floats_of(ours), floats_of(theirs)), static_cast<size_t>(ours.rows() * ours.cols() / 5))
            << f.name << " " << dtype_name(type);
      }
    }
  }
}

}  // namespace
}  // namespace mxlm::cuda_test
