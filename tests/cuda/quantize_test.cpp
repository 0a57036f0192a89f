// The GPU's quantisers beside the CPU's: the same bits, for every format, block, rule, rounding, stage and shape.

#include "mx/quantize.hpp"

#include "mx/reference_format.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

using Quantize = CudaTest;

std::string describe(const mx::Format& f) {
  return mx::format_name(f) + " block " + std::to_string(f.block_size) + " scale_bits " + std::to_string(f.scale_bits) +
         ' ' + std::string(mx::rule_name(f.rule)) + ' ' + std::string(mx::rounding_name(f.rounding));
}

/// Values on which quantisers differ, if they do: of all magnitudes, on ties, around the largest of each block; a block
/// here and there is all zeros, subnormal, huge, or holds a NaN or an Inf.
std::vector<float> hard_values(int64_t rows, int64_t cols, uint32_t seed) {
  std::vector<float> x = random_values(static_cast<size_t>(rows * cols), seed, 1, false);
  std::mt19937 engine(seed + 1);
  const auto pick = [&](int n) { return static_cast<int>(engine() % static_cast<uint32_t>(n)); };
  for (int64_t start = 0; start < rows * cols; start += 32) {
    const int kind = pick(24);
    const int exponent = pick(60) - 30;
    for (int64_t i = start; i < std::min(start + 32, rows * cols); ++i) {
      float& v = x[static_cast<size_t>(i)];
      switch (kind) {
        case 0:
          v = pick(2) == 0 ? 0.0F : -0.0F;
          break;
        case 1:
          v *= 1e-38F;  // around the smallest normal number
          break;
        case 2:
          v *= 1e-42F;
          break;
        case 3:
          v = std::copysign(pick(4) == 0 ? 3.4e38F : 1e38F, v);
          break;
        case 4:
          if (pick(32) == 0) v = NAN;
          break;
        case 5:
          if (pick(32) == 0) v = -INFINITY;
          break;
        case 6:
        case 7:
          v = std::ldexp(std::round(v * 64) / 16, exponent);  // ties
          break;
        case 8:
          v = std::ldexp(std::copysign(1.0F + static_cast<float>(pick(9) - 4) * 0.0625F, v), pick(4) + exponent);
          break;
        case 9:
          v *= std::ldexp(1.0F, -pick(40));  // a wide spread
          break;
        case 10:
          v = v * 1e-5F;
          if (pick(8) == 0) v = 0;
          break;
        default:
          break;
      }
    }
  }
  return x;
}

/// One input on both backends.
struct Pair {
  Tensor gpu, cpu;
};

class Inputs {
 public:
  Inputs(Backend& gpu, Backend& cpu, int64_t rows, int64_t cols, DType type) {
    const auto values = hard_values(rows, cols, static_cast<uint32_t>(cols));
    pair_ = {gpu.upload(matrix(values, rows, cols), type), cpu.upload(matrix(values, rows, cols), type)};
  }
  const Pair& pair() const { return pair_; }

 private:
  Pair pair_;
};

/// Storages that a spec may have in a model of this dtype.
std::vector<DType> storages(const mx::Format& f) {
  if (mx::decodes_exactly_to_bf16(f)) return {DType::bf16, DType::f32};
  return {DType::f32};
}

/// The zeros behind the last column, which products read.
size_t nonzero_padding(Backend& gpu, const Tensor& values) {
  const Tensor whole(values.dtype(), values.rows(), values.stride(), values.stride(),
                     std::shared_ptr<void>(const_cast<void*>(values.data()), [](void*) {}));
  const std::vector<float> all = values_of(gpu, whole);
  size_t count = 0;
  for (int64_t r = 0; r < values.rows(); ++r) {
    for (int64_t c = values.cols(); c < values.stride(); ++c) {
      const float x = all[static_cast<size_t>(r * values.stride() + c)];
      count += std::memcmp(&x, "\0\0\0\0", sizeof x) != 0 ? 1 : 0;
    }
  }
  return count;
}

void expect_same_operands(Backend& gpu, Backend& cpu, const Pair& x, const std::vector<mx::Format>& formats,
                          std::span<const int64_t> windows) {
  std::vector<Operand> on_gpu, on_cpu;
  for (const mx::Format& f : formats) {
    for (const DType storage : storages(f)) {
      for (auto* list : {&on_gpu, &on_cpu}) {
        list->push_back({.type = {f, storage}, .values = {}, .row_scales = {}, .outliers = {}});
      }
    }
  }
  gpu.operands(x.gpu, windows, on_gpu);
  cpu.operands(x.cpu, windows, on_cpu);
  for (size_t i = 0; i < on_gpu.size(); ++i) {
    const mx::Format& f = *on_gpu[i].type.spec;
    const std::string what = describe(f) + (on_gpu[i].type.storage == DType::bf16 ? " bf16" : " f32") + " from " +
                             (x.gpu.dtype() == DType::bf16 ? "bf16 " : "f32 ") + std::to_string(x.gpu.rows()) + " x " +
                             std::to_string(x.gpu.cols());
    EXPECT_EQ(different(values_of(gpu, on_gpu[i].values), values_of(cpu, on_cpu[i].values)), 0U) << what;
    if (x.gpu.cols() % 64 != 0) {
      EXPECT_EQ(nonzero_padding(gpu, on_gpu[i].values), 0U) << what;
    }
    ASSERT_EQ(on_gpu[i].row_scales.empty(), on_cpu[i].row_scales.empty()) << what;
    if (!on_gpu[i].row_scales.empty()) {
      EXPECT_EQ(different(values_of(gpu, on_gpu[i].row_scales), values_of(cpu, on_cpu[i].row_scales)), 0U) << what;
    }
    if (!on_gpu[i].outliers.empty()) {
      const auto got = values_of(gpu, on_gpu[i].outliers);
      const auto want =
          on_cpu[i].outliers.empty() ? std::vector<float>(got.size()) : values_of(cpu, on_cpu[i].outliers);
      EXPECT_EQ(different(got, want), 0U) << what << " outliers";
    }
  }
}

std::vector<mx::ElementFormat> elements() {
  std::vector<mx::ElementFormat> all;
  for (const auto& e : mx::kElements) all.push_back(e.format);
  for (const char* name :
       {"mxe1m1", "mxe3m0", "mxe5m10", "mxe7m8", "mxe7m0", "mxint2", "mxint4", "mxint9", "mxint16"}) {
    all.push_back(*mx::parse_element(name));
  }
  return all;
}

TEST_F(Quantize, EveryElementRuleAndRoundingInBlocksOf32) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {100, 576}) {
      const Inputs inputs(gpu(), cpu(), 40, cols, type);
      for (const mx::ElementFormat& element : elements()) {
        std::vector<mx::Format> formats;
        for (const auto& rule : mx::kScaleRules) {
          for (const auto& rounding : mx::kRoundings) {
            mx::Format f;
            f.element = element;
            f.rule = rule.rule;
            f.rounding = rounding.rounding;
            formats.push_back(f);
          }
        }
        expect_same_operands(gpu(), cpu(), inputs.pair(), formats, {});
      }
    }
  }
}

TEST_F(Quantize, EveryBlockSizeAndScaleWidth) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 31, 100, 576, 4099}) {
      const Inputs inputs(gpu(), cpu(), cols > 1000 ? 5 : 33, cols, type);
      std::vector<mx::Format> formats;
      for (const char* name : {"mxfp8_e4m3", "mxfp4_e2m1", "mxint8", "mxe5m10"}) {
        for (const int block : {0, 8, 12, 16, 32, 33, 64, 128, 255, 256}) {
          for (const int bits : mx::kScaleBits) {
            for (const mx::ScaleRule rule : {mx::ScaleRule::floor, mx::ScaleRule::rceil, mx::ScaleRule::mse}) {
              if (rule == mx::ScaleRule::mse && (bits != 8 || block > 33)) continue;
              mx::Format f = *mx::parse_format(name);
              f.block_size = block;
              f.scale_bits = bits;
              f.rule = rule;
              formats.push_back(f);
            }
          }
        }
      }
      expect_same_operands(gpu(), cpu(), inputs.pair(), formats, {});
    }
  }
}

TEST_F(Quantize, EveryStageByWindows) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 31, 100, 576, 4099}) {
      const int64_t rows = 21;
      auto values = random_values(static_cast<size_t>(rows * cols), static_cast<uint32_t>(cols), 2.5F);
      for (size_t i = 0; i < values.size(); i += 97) values[i] = i % 2 == 0 ? -0.0F : 1e-40F;
      for (int64_t c = 0; c < cols; ++c) values[static_cast<size_t>(3 * cols + c)] = 0;  // a row of zeros
      values[static_cast<size_t>(7 * cols)] = NAN;
      values[static_cast<size_t>(16 * cols + cols / 2)] = INFINITY;
      const Pair pair{gpu().upload(matrix(values, rows, cols), type), cpu().upload(matrix(values, rows, cols), type)};
      std::vector<mx::Format> formats;
      for (const auto& stage : mx::kReferenceFormats) {
        formats.push_back(stage.format);
        if (!stage.takes_rounding) continue;
        for (const auto& rounding : mx::kRoundings) {
          formats.push_back(stage.format);
          formats.back().rounding = rounding.rounding;
        }
      }
      expect_same_operands(gpu(), cpu(), pair, formats, {});
      expect_same_operands(gpu(), cpu(), pair, formats, std::vector<int64_t>{0, 6, 6, 7, 15, 21});
    }
  }
}

TEST_F(Quantize, PlainValuesKeepTheirBits) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 31, 64, 100, 576}) {
      const Inputs inputs(gpu(), cpu(), 9, cols, type);
      for (const DType storage : {type, DType::f32}) {
        std::vector<Operand> outs(1);
        outs[0].type.storage = storage;
        gpu().operands(inputs.pair().gpu, {}, outs);
        EXPECT_EQ(outs[0].values.dtype(), storage);
        EXPECT_EQ(different(values_of(gpu(), outs[0].values), values_of(cpu(), inputs.pair().cpu)), 0U) << cols;
        EXPECT_EQ(nonzero_padding(gpu(), outs[0].values), 0U);
      }
    }
  }
}

TEST_F(Quantize, TakesColumnViewsAndEmptyTensors) {
  mx::Format f = *mx::parse_format("mxfp6_e2m3");
  for (const DType type : {DType::bf16, DType::f32}) {
    const Inputs inputs(gpu(), cpu(), 12, 200, type);
    for (const int64_t first : {0, 1, 3, 8, 16}) {
      const Pair view{inputs.pair().gpu.columns(first, 100), inputs.pair().cpu.columns(first, 100)};
      expect_same_operands(gpu(), cpu(), view, {f, *mx::parse_format("fp8_e4m3_row"), *mx::parse_format("nvfp4")}, {});
    }
    const Pair none{gpu().empty(type, 0, 200), cpu().empty(type, 0, 200)};
    expect_same_operands(gpu(), cpu(), none, {f, *mx::parse_format("int8_row"), *mx::parse_format("llm_int8")},
                         std::vector<int64_t>{0});
  }
}

/// A weight's quantised values: its product with the unit matrix, whose sums have one term that is not zero.
std::vector<float> weight_values(Backend& b, const PreparedWeight& weight) {
  const int64_t k = weight.cols();
  std::vector<float> unit(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) unit[static_cast<size_t>(i * k + i)] = 1;
  const Tensor x = b.upload(matrix(unit, k, k), DType::f32);
  Operand operand{.type = b.operand_type({}, weight, DType::f32), .values = {}, .row_scales = {}, .outliers = {}};
  b.operands(x, {}, {&operand, 1});
  Tensor out = b.empty(DType::f32, k, weight.rows());
  b.linear(operand, weight, {}, out);
  std::vector<float> values = values_of(b, out);
  for (float& v : values) v += 0.0F;  // a sum with zeros says nothing of a zero's sign
  return values;
}

TEST_F(Quantize, WeightsAndTheirKeptCodesHaveTheValuesOfTheCpu) {
  for (const int64_t cols : {1, 31, 192}) {
    const int64_t rows = 50;
    auto values = random_values(static_cast<size_t>(rows * cols), static_cast<uint32_t>(cols) + 5, 0.1F);
    for (size_t i = 0; i < values.size(); i += 31) values[i] = 0;
    const auto narrow = to_bf16(values);
    for (const HostMatrix& source : {matrix(values, rows, cols), matrix(narrow, rows, cols)}) {
      std::vector<mx::Format> formats;
      for (const mx::ElementFormat& element : elements()) {
        if (element.bits() > 8 || element.exponent_bits > 5) continue;
        for (const int block : {0, 12, 16, 32}) {
          for (const mx::Rounding rounding : {mx::Rounding::even, mx::Rounding::nearest}) {
            mx::Format f;
            f.element = element;
            f.block_size = block;
            f.rounding = rounding;
            formats.push_back(f);
          }
        }
      }
      for (const char* name : {"fp8_e4m3_row", "int8_row", "nvfp4", "fp8_e5m2_tensor", "llm_int8", "bf16"}) {
        formats.push_back(*mx::parse_format(name));
      }
      for (const mx::Format& f : formats) {
        const auto want = weight_values(cpu(), *cpu().prepare(source, f));
        EXPECT_EQ(different(weight_values(gpu(), *gpu().prepare(source, f)), want), 0U) << describe(f) << ' ' << cols;
        const auto kept = gpu().keep(source, f);
        EXPECT_EQ(different(weight_values(gpu(), *gpu().prepare(kept)), want), 0U) << describe(f) << ' ' << cols;
      }
    }
  }
}

}  // namespace
}  // namespace mxlm::cuda_test
