// Norms, activation functions and what a linear does after its product, on the GPU beside the CPU's.

#include "mx/quantize.hpp"
#include "support.hpp"

namespace mxlm::cuda_test {
namespace {

using RowOperations = CudaTest;

/// The distance of numbers of a dtype around x (those below 2^-100 are all as far apart as there).
double ulp(double x, DType type) {
  const double magnitude = std::max(std::abs(x), 0x1p-100);
  return std::ldexp(1.0, std::ilogb(magnitude) - (type == DType::bf16 ? 7 : 23));
}

std::vector<Operand> operands_of(const std::vector<OperandType>& types) {
  std::vector<Operand> outs;
  for (const OperandType& type : types) {
    outs.push_back({.type = type, .values = {}, .row_scales = {}, .outliers = {}});
  }
  return outs;
}

/// Twelve operands: of the fast path and off it, so that they take more than one pass; the values themselves first.
std::vector<OperandType> many_types(DType model) {
  std::vector<OperandType> types{{std::nullopt, model}};
  for (const char* name : {"mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8", "mxint4",
                           "fp8_e4m3_row", "nvfp4", "mxe3m3", "bf16"}) {
    types.push_back({mx::parse_format(name), DType::bf16});
  }
  types[2].spec->block_size = 128;
  types[3].spec->block_size = 0;
  types[4].spec->rule = mx::ScaleRule::mse;
  types[5].storage = DType::f32;
  return types;
}

/// Every operand that `produce` gives is that of the values that it gives as they are.
template <typename Produce>
void expect_operands_of_values(Backend& b, DType model, const Produce& produce) {
  std::vector<Operand> fused = operands_of(many_types(model));
  produce(std::span<Operand>(fused));
  std::vector<OperandType> types = many_types(model);
  types.erase(types.begin());
  std::vector<Operand> apart = operands_of(types);
  b.operands(fused[0].values, {}, apart);
  for (size_t i = 0; i < apart.size(); ++i) {
    EXPECT_EQ(different(values_of(b, fused[i + 1].values), values_of(b, apart[i].values)), 0U) << i;
  }
  // Without anybody who wants the values.
  std::vector<Operand> alone = operands_of(types);
  produce(std::span<Operand>(alone));
  for (size_t i = 0; i < apart.size(); ++i) {
    EXPECT_EQ(different(values_of(b, alone[i].values), values_of(b, apart[i].values)), 0U) << i;
  }
}

// --- norms

struct NormCase {
  int64_t rows, cols, group;
};

/// The norm in double from inputs as a backend holds them.
std::vector<double> exact_norm(const std::vector<float>& x, const NormCase& c, const NormArgs& args,
                               const std::vector<float>* weight, const std::vector<float>* bias) {
  const int64_t group = c.group == 0 ? c.cols : c.group;
  std::vector<double> y(x.size());
  for (int64_t start = 0; start < c.rows * c.cols; start += group) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < group; ++i) mean += x[static_cast<size_t>(start + i)];
    mean = args.kind == NormKind::rms ? 0 : mean / static_cast<double>(group);
    for (int64_t i = 0; i < group; ++i) {
      const double d = x[static_cast<size_t>(start + i)] - mean;
      squares += d * d;
    }
    const double scale = 1 / std::sqrt(squares / static_cast<double>(group) + double{args.epsilon});
    for (int64_t i = 0; i < group; ++i) {
      double v = (x[static_cast<size_t>(start + i)] - mean) * scale;
      const auto at = [&](const std::vector<float>& of) {
        const int64_t column = (start + i) % c.cols;
        return double{of[static_cast<size_t>(static_cast<int64_t>(of.size()) == c.cols ? column : i)]};
      };
      if (weight != nullptr) v *= at(*weight) + double{args.weight_offset};
      if (bias != nullptr) v += at(*bias);
      y[static_cast<size_t>(start + i)] = v;
    }
  }
  return y;
}

double largest_error(const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) error = std::max(error, std::abs(got[i] - want[i]));
  return error;
}

/// At most twice the CPU's error against float64, and a step more.
TEST_F(RowOperations, NormsAreAsExactAsTheCpus) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const NormCase& c :
         {NormCase{3, 1, 0}, NormCase{5, 31, 0}, NormCase{9, 100, 0}, NormCase{4, 576, 0}, NormCase{3, 2048, 0},
          NormCase{3, 4096, 0}, NormCase{2, 4099, 0}, NormCase{2, 6000, 0}, NormCase{2, 9000, 0}, NormCase{1, 20000, 0},
          NormCase{1, 33000, 0}, NormCase{7, 512, 64}, NormCase{3, 99, 33}, NormCase{2, 6000, 3000}}) {
      const auto x = random_values(static_cast<size_t>(c.rows * c.cols), static_cast<uint32_t>(c.cols), 3);
      const HostMatrix source = matrix(x, c.rows, c.cols);
      const Tensor on_gpu = gpu().upload(source, type), on_cpu = cpu().upload(source, type);
      const std::vector<float> held = values_of(cpu(), on_cpu);
      for (const int weights : {0, 1, 2}) {  // none, one for every group, each its own
        const int64_t n = weights == 1 && c.group != 0 ? c.group : c.cols;
        const auto weight = random_values(static_cast<size_t>(n), 2), bias = random_values(static_cast<size_t>(n), 3);
        const Tensor gpu_weight = gpu().upload(matrix(weight, 1, n), type),
                     cpu_weight = cpu().upload(matrix(weight, 1, n), type);
        const Tensor gpu_bias = gpu().upload(matrix(bias, 1, n), type),
                     cpu_bias = cpu().upload(matrix(bias, 1, n), type);
        const std::vector<float> held_weight = values_of(cpu(), cpu_weight), held_bias = values_of(cpu(), cpu_bias);
        for (const int kind : {0, 1, 2}) {  // an RMSNorm as llama's, one as gemma's, a LayerNorm
          NormArgs args;
          args.kind = kind == 2 ? NormKind::layer : NormKind::rms;
          args.epsilon = 1e-5F;
          args.round_before_weight = kind == 0;
          args.weight_offset = kind == 1 && weights != 0 ? 1.0F : 0.0F;
          args.group = c.group;
          NormArgs gpu_args = args, cpu_args = args;
          if (weights != 0) {
            gpu_args.weight = &gpu_weight;
            cpu_args.weight = &cpu_weight;
          }
          const bool biased = weights != 0 && kind == 2;
          if (biased) {
            gpu_args.bias = &gpu_bias;
            cpu_args.bias = &cpu_bias;
          }
          Tensor gpu_out = gpu().empty(type, c.rows, c.cols), cpu_out = cpu().empty(type, c.rows, c.cols);
          gpu().norm(on_gpu, gpu_args, gpu_out);
          cpu().norm(on_cpu, cpu_args, cpu_out);
          const auto want =
              exact_norm(held, c, args, weights != 0 ? &held_weight : nullptr, biased ? &held_bias : nullptr);
          const std::vector<float> got = values_of(gpu(), gpu_out);
          double largest = 0;
          for (const double v : want) largest = std::max(largest, std::abs(v));
          EXPECT_LE(largest_error(got, want), 2 * largest_error(values_of(cpu(), cpu_out), want) + ulp(largest, type))
              << (type == DType::bf16 ? "bf16 " : "f32 ") << c.rows << " x " << c.cols << " by " << c.group << " kind "
              << kind << " weights " << weights;

          // In place, and from a view that is not aligned: the same bits.
          Tensor wide = gpu().empty(type, c.rows, c.cols + 3);
          Tensor part = wide.columns(3, c.cols);
          gpu().copy(on_gpu, part);
          gpu().norm(part, gpu_args, part);
          EXPECT_EQ(different(values_of(gpu(), part), got), 0U) << c.cols << " by " << c.group;
        }
      }
    }
  }
}

TEST_F(RowOperations, NormsOfARowDoNotDependOnTheBatch) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {100, 576, 4096}) {
      const auto x = random_values(static_cast<size_t>(17 * cols), 4, 2, true);
      const Tensor all = gpu().upload(matrix(x, 17, cols), type);
      for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
        NormArgs args;
        args.kind = kind;
        Tensor whole = gpu().empty(type, 17, cols), one = gpu().empty(type, 1, cols);
        gpu().norm(all, args, whole);
        for (const int64_t r : {0, 5, 16}) {
          gpu().norm(all.view(r, 1, 0, cols), args, one);
          EXPECT_EQ(different(values_of(gpu(), one), values_of(gpu(), whole.view(r, 1, 0, cols))), 0U);
        }
      }
    }
  }
}

TEST_F(RowOperations, NormsGiveOperands) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {100, 576, 4099}) {
      const Tensor x = gpu().upload(matrix(random_values(static_cast<size_t>(11 * cols), 5, 2, true), 11, cols), type);
      const Tensor weight = gpu().upload(matrix(random_values(static_cast<size_t>(cols), 6), 1, cols), type);
      for (const int64_t group : {int64_t{0}, cols % 100 == 0 ? cols / 4 : int64_t{0}}) {
        NormArgs args;
        args.weight = &weight;
        args.group = group;
        const std::vector<int64_t> windows{0, 11};
        expect_operands_of_values(gpu(), type, [&](std::span<Operand> outs) { gpu().norm(x, args, windows, outs); });
      }
    }
  }
}

TEST_F(RowOperations, LayerNormsRoundedToBf16AreTheCpus) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 100, 576, 4099}) {
      const auto x = random_values(static_cast<size_t>(6 * cols), 7, 2);
      const auto weight = random_values(static_cast<size_t>(cols), 8),
                 bias = random_values(static_cast<size_t>(cols), 9);
      std::vector<std::vector<float>> results;
      for (Backend* b : {&gpu(), &cpu()}) {
        const Tensor input = b->upload(matrix(x, 6, cols), type);
        const Tensor w = b->upload(matrix(weight, 1, cols), type), c = b->upload(matrix(bias, 1, cols), type);
        NormArgs args;
        args.kind = NormKind::layer;
        args.weight = &w;
        args.bias = &c;
        args.arithmetic = Arithmetic::bf16_rounded;
        std::vector<Operand> outs = operands_of({{std::nullopt, type}});
        b->norm(input, args, {}, outs);
        results.push_back(values_of(*b, outs[0].values));
      }
      EXPECT_EQ(different(results[0], results[1]), 0U) << cols;
    }
  }
}

// --- activation functions

constexpr Activation kActivations[] = {Activation::silu,        Activation::gelu_tanh,  Activation::gelu_erf,
                                       Activation::gelu_new,    Activation::quick_gelu, Activation::relu,
                                       Activation::relu_squared};

double exact_activation(Activation activation, double x) {
  constexpr double kPi = 3.14159265358979323846;
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu_tanh:
    case Activation::gelu_new:
      return x / (1 + std::exp(-2 * std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    default: {
      const double positive = std::max(x, 0.0);
      return activation == Activation::relu ? positive : positive * positive;
    }
  }
}

struct Activated {
  std::vector<float> x, y;
};
Activated activated(Backend& b, const HostMatrix& source, DType type, Activation activation, Arithmetic arithmetic) {
  const Tensor x = b.upload(source, type);
  std::vector<Operand> outs = operands_of({{std::nullopt, type}});
  b.activation(x, activation, arithmetic, {}, outs);
  return {values_of(b, x), values_of(b, outs[0].values)};
}

double largest_error_in_ulps(const Activated& a, Activation activation, DType type) {
  double error = 0;
  for (size_t i = 0; i < a.x.size(); ++i) {
    const double want = exact_activation(activation, a.x[i]);
    error = std::max(error, std::abs(a.y[i] - want) / ulp(want, type));
  }
  return error;
}

/// Within two steps of the dtype of float64, or no worse than twice the CPU where the formula itself loses more.
TEST_F(RowOperations, ActivationsAreExact) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 31, 576, 4099}) {
      const auto x = random_values(static_cast<size_t>(5 * cols), static_cast<uint32_t>(cols), 4);
      for (const Activation activation : kActivations) {
        const HostMatrix source = matrix(x, 5, cols);
        const Activated on_gpu = activated(gpu(), source, type, activation, Arithmetic::model_dtype);
        const Activated on_cpu = activated(cpu(), source, type, activation, Arithmetic::model_dtype);
        EXPECT_LE(largest_error_in_ulps(on_gpu, activation, type),
                  std::max(2.0, 2 * largest_error_in_ulps(on_cpu, activation, type)))
            << static_cast<int>(activation) << (type == DType::bf16 ? " bf16" : " f32");
      }
    }
  }
}

/// Results of many roundings: the same but where one of them fell the other way.
void expect_nearly_same(const std::vector<float>& got, const std::vector<float>& want, double bound,
                        const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  size_t count = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::isnan(got[i]), std::isnan(want[i])) << what << " at " << i;
    if (std::isnan(got[i]) || got[i] == want[i]) continue;
    ++count;
    EXPECT_NEAR(got[i], want[i], std::abs(want[i]) * bound + 1e-30) << what << " at " << i;
  }
  if (bound > 1e-4) {
    EXPECT_LE(count, 1 + got.size() / 50) << what;
  }
}

TEST_F(RowOperations, ActivationsOpByOpAreTheCpus) {
  for (const DType type : {DType::bf16, DType::f32}) {
    const auto x = random_values(20 * 576, 11, 4, true);
    const HostMatrix source = matrix(x, 20, 576);
    for (const Activation activation : kActivations) {
      for (const Arithmetic arithmetic : {Arithmetic::model_dtype, Arithmetic::bf16_rounded}) {
        const auto got = activated(gpu(), source, type, activation, arithmetic).y;
        const auto want = activated(cpu(), source, type, activation, arithmetic).y;
        const bool bf16 = arithmetic == Arithmetic::bf16_rounded || type == DType::bf16;
        expect_nearly_same(got, want, bf16 ? 0x1p-5 : 1e-4,
                           std::to_string(static_cast<int>(activation)) +
                               (arithmetic == Arithmetic::bf16_rounded ? " bf16_rounded" : ""));
      }
    }
  }
}

TEST_F(RowOperations, GatedActivationsAreTheCpus) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 31, 100, 576}) {
      const auto x = random_values(static_cast<size_t>(9 * 2 * cols), 12, 3, true);
      for (int a = 0; a <= static_cast<int>(Activation::swiglu_oai); ++a) {
        for (const bool interleaved : {false, true}) {
          for (const Arithmetic arithmetic : {Arithmetic::model_dtype, Arithmetic::bf16_rounded}) {
            GatedArgs args;
            args.activation = static_cast<Activation>(a);
            args.interleaved = interleaved;
            args.limit = args.activation == Activation::swiglu_oai ? 7.0F : 0.0F;
            args.arithmetic = arithmetic;
            std::vector<std::vector<float>> results;
            for (Backend* b : {&gpu(), &cpu()}) {
              const Tensor both = b->upload(matrix(x, 9, 2 * cols), type);
              const Tensor gate = both.columns(0, interleaved ? 2 * cols : cols), up = both.columns(cols, cols);
              std::vector<Operand> outs = operands_of({{std::nullopt, type}});
              b->gated_activation(gate, up, args, {}, outs);
              results.push_back(values_of(*b, outs[0].values));
            }
            expect_nearly_same(results[0], results[1],
                               arithmetic == Arithmetic::bf16_rounded || type == DType::bf16 ? 0x1p-5 : 1e-4,
                               std::to_string(a) + (interleaved ? " interleaved" : "") +
                                   (arithmetic == Arithmetic::bf16_rounded ? " bf16_rounded" : ""));
          }
        }
      }
    }
  }
}

TEST_F(RowOperations, ActivationsGiveOperands) {
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {100, 576}) {
      const Tensor x =
          gpu().upload(matrix(random_values(static_cast<size_t>(13 * 2 * cols), 13, 2, true), 13, 2 * cols), type);
      const Tensor gate = x.columns(0, cols), up = x.columns(cols, cols);
      const std::vector<int64_t> windows{0, 13};
      expect_operands_of_values(gpu(), type, [&](std::span<Operand> outs) {
        gpu().activation(gate, Activation::gelu_erf, Arithmetic::model_dtype, windows, outs);
      });
      expect_operands_of_values(gpu(), type,
                                [&](std::span<Operand> outs) { gpu().gated_activation(gate, up, {}, windows, outs); });
    }
  }
}

// --- after a product

/// Small whole numbers, whose products are exact in any order.
std::vector<float> whole_numbers(size_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> out(count);
  for (float& x : out) x = static_cast<float>(static_cast<int>(engine() % 7) - 3);
  return out;
}

TEST_F(RowOperations, LinearsEndAsTheCpusDo) {
  constexpr int64_t kRows = 21, kInputs = 96;
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t n : {1, 31, 100, 192}) {
      const auto x = whole_numbers(static_cast<size_t>(kRows * kInputs), 14);
      const auto w = to_bf16(whole_numbers(static_cast<size_t>(n * kInputs), 15));
      const auto bias = whole_numbers(static_cast<size_t>(n), 16);
      const auto residual = random_values(static_cast<size_t>(kRows * n), 17, 10);
      std::vector<OperandSpec> outputs{std::nullopt};
      for (const char* name : {"mxfp8_e4m3", "mxint4", "mxe5m10", "fp8_e4m3_row", "int8_row", "bf16", "mxfp4"}) {
        outputs.push_back(mx::parse_format(name));
      }
      outputs.back()->block_size = 0;
      for (const OperandSpec& spec : outputs) {
        for (const Arithmetic arithmetic : {Arithmetic::model_dtype, Arithmetic::bf16_rounded}) {
          for (const float multiplier : {1.0F, 0.37F}) {
            for (const int adds : {0, 1, 2}) {  // nothing, a tensor, what is in the output
              std::vector<std::vector<float>> results;
              for (Backend* b : {&gpu(), &cpu()}) {
                const auto weight = b->prepare(matrix(w, n, kInputs), {});
                const Tensor input = b->upload(matrix(x, kRows, kInputs), type);
                std::vector<Operand> operand = operands_of({b->operand_type({}, *weight, type)});
                b->operands(input, {}, operand);
                const Tensor bias_tensor = b->upload(matrix(bias, 1, n), DType::f32);
                Tensor out = b->upload(matrix(residual, kRows, n), type);
                Tensor other = b->upload(matrix(residual, kRows, n), type);
                b->linear(operand[0], *weight,
                          {.bias = arithmetic == Arithmetic::bf16_rounded || adds == 1 ? &bias_tensor : nullptr,
                           .residual = adds == 0   ? nullptr
                                       : adds == 1 ? &other
                                                   : &out,
                           .outputs = spec,
                           .multiplier = multiplier,
                           .arithmetic = arithmetic},
                          out);
                results.push_back(values_of(*b, out));
              }
              for (auto& result : results) {
                for (float& v : result) v += 0.0F;
              }
              EXPECT_EQ(different(results[0], results[1]), 0U)
                  << n << ' ' << (spec ? mx::format_name(*spec) : "none")
                  << (arithmetic == Arithmetic::bf16_rounded ? " bf16_rounded " : " ") << multiplier << " adds " << adds
                  << (type == DType::bf16 ? " bf16" : " f32");
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mxlm::cuda_test
