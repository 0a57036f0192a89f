// The operations of the CPU backend against torch's results (tests/data/backend/ops.bin, made by
// tools/goldens/make_ops_goldens.py) and against plain float64 or exact references.

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/buffers.hpp"
#include "backend/cpu/quantize.hpp"
#include "base/error.hpp"
#include "mx/format.hpp"
#include "ops_support.hpp"

namespace mxlm {
namespace {

using cpu::Isa;

// --- matrices of host memory

/// Values of a type, at an address of a chosen misalignment.
struct Host {
  Host(DType type, int64_t rows, int64_t cols, int64_t stride, size_t misalign = 0)
      : bytes(static_cast<size_t>(rows * stride) * dtype_size(type) + misalign),
        matrix{type, rows, cols, stride, bytes.data() + misalign} {}
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  void set(int64_t r, int64_t c, float x) {
    std::byte* to = bytes.data() + (matrix.data - bytes.data()) +
                    (r * matrix.stride + c) * static_cast<int64_t>(dtype_size(matrix.type));
    if (matrix.type == DType::f32) {
      std::memcpy(to, &x, 4);
    } else {
      const uint16_t bits = matrix.type == DType::bf16 ? to_bfloat16(x).bits : half_bits(x);
      std::memcpy(to, &bits, 2);
    }
  }
  [[nodiscard]] float get(int64_t r, int64_t c) const {
    const std::byte* from = matrix.data + (r * matrix.stride + c) * static_cast<int64_t>(dtype_size(matrix.type));
    if (matrix.type == DType::f32) {
      float x = 0;
      std::memcpy(&x, from, 4);
      return x;
    }
    uint16_t bits = 0;
    std::memcpy(&bits, from, 2);
    return matrix.type == DType::bf16 ? to_float(BFloat16{bits}) : half_to_float(bits);
  }

  /// The half next below in magnitude: enough to make test values.
  static uint16_t half_bits(float x) {
    uint16_t best = 0;
    for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
      if (half_to_float(static_cast<uint16_t>(bits)) > std::abs(x)) break;
      best = static_cast<uint16_t>(bits);
    }
    return static_cast<uint16_t>(best | (x < 0 ? 0x8000U : 0U));
  }

  std::vector<std::byte> bytes;
  HostMatrix matrix;
};

mx::Format format_of(const char* name) {
  const auto element = mx::parse_element(name);
  if (!element) throw Error("no such element format");
  mx::Format format;
  format.element = *element;
  return format;
}

std::vector<mx::Format> formats() {
  std::vector<mx::Format> all;
  for (const char* name : {"mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8", "mxint4",
                           "mxint12", "mxe5m10"}) {
    all.push_back(format_of(name));
  }
  all[0].block_size = 0;
  all[4].block_size = 16;
  all[5].scale_bits = 4;
  mx::Format wide = all[0];
  wide.scale_bits = 16;
  all.push_back(wide);
  return all;
}

class OpsOnEachIsa : public OnEachIsa {};
MXLM_INSTANTIATE_ON_EACH_ISA(OpsOnEachIsa);

TEST_P(OpsOnEachIsa, NormMatchesTorchInBf16) {
  const auto b = backend(GetParam());
  const Tensor x = b->upload(view(golden("norm.x").bf16, 5), DType::bf16);
  const Tensor weight = b->upload(view(golden("norm.weight").bf16, 1), DType::bf16);
  std::vector<Operand> outs;
  outs.push_back(operand(DType::bf16));
  outs.push_back(operand(DType::f32));
  b->norm(x, {.weight = &weight}, {}, outs);
  expect_same(download(*b, outs[0].values), golden("norm.y").values);
  expect_same(download(*b, outs[1].values), golden("norm.y").values);
}

TEST_P(OpsOnEachIsa, RotateMatchesTorchInBf16) {
  const auto b = backend(GetParam());
  Tensor x = b->upload(view(golden("rotary.x").bf16, 4), DType::bf16);
  const Tensor cos = b->upload(view(golden("rotary.cos").bf16, 4), DType::bf16);
  const Tensor sin = b->upload(view(golden("rotary.sin").bf16, 4), DType::bf16);
  const std::vector<int32_t> rows{0, 1, 2, 3};
  b->rotate(x, 3, 38, {.cos = &cos, .sin = &sin, .rows = rows});
  expect_same(download(*b, x), golden("rotary.y").values);
}

TEST_P(OpsOnEachIsa, GatedActivationMatchesTorchInBf16) {
  const auto b = backend(GetParam());
  const Tensor gate = b->upload(view(golden("gated.gate").bf16, 1), DType::bf16);
  const Tensor up = b->upload(view(golden("gated.up").bf16, 1), DType::bf16);
  const std::vector<BFloat16> ones(golden("gated.gate").bf16.size(), to_bfloat16(1));
  const Tensor one = b->upload(view(ones, 1), DType::bf16);
  std::vector<Operand> outs;
  outs.push_back(operand(DType::bf16));
  b->gated_activation(gate, one, {}, {}, outs);
  expect_same(download(*b, outs[0].values), golden("gated.silu").values);
  b->gated_activation(gate, up, {}, {}, outs);
  expect_same(download(*b, outs[0].values), golden("gated.silu_up").values);
  // torch's GELU loses digits where 1 + erf or 1 + tanh cancels, and at both ends of the range; ours may not lose more.
  const std::vector<float>& x = golden("gated.gate").values;
  for (const auto& [activation, name] :
       {std::pair{Activation::gelu_tanh, "gated.gelu_tanh"}, std::pair{Activation::gelu_erf, "gated.gelu_erf"}}) {
    b->gated_activation(gate, one, {.activation = activation}, {}, outs);
    const std::vector<float> got = download(*b, outs[0].values);
    for (size_t i = 0; i < got.size(); ++i) {
      const double v = x[i];
      // 1 + tanh would cancel, in float64 too
      const double exact = activation == Activation::gelu_erf
                               ? 0.5 * v * std::erfc(-v * std::sqrt(0.5))
                               : v / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      if (std::isnan(exact) || std::isinf(exact)) {
        EXPECT_EQ(bits_of(got[i]), bits_of(static_cast<float>(exact))) << name << " of " << v;
        continue;
      }
      const double half_ulp = std::max(std::abs(exact) / 256, 0x1p-134) * 1.0001;
      const double torch = golden(name).values[i];
      EXPECT_LE(std::abs(got[i] - exact), half_ulp + 2 * std::abs(torch - exact)) << name << " of " << v;
    }
  }
  b->gated_activation(gate, up, {.activation = Activation::relu}, {}, outs);
  const std::vector<float> relu = download(*b, outs[0].values);
  for (size_t i = 0; i < relu.size(); ++i) {
    const float want = to_float(to_bfloat16((x[i] < 0 ? 0.0F : x[i]) * golden("gated.up").values[i]));
    EXPECT_EQ(bits_of(relu[i]), bits_of(want)) << x[i];
  }
}

TEST_P(OpsOnEachIsa, LinearRoundsAsTorchInBf16) {
  const auto b = backend(GetParam());
  Operand x = operand(DType::bf16);
  x.values = b->upload(view(golden("linear.a").bf16, 3), DType::bf16);
  const auto weight = b->prepare(view(golden("linear.w").bf16, 37), std::nullopt);
  EXPECT_EQ(weight->storage(), DType::bf16);
  const Tensor bias = b->upload(view(golden("linear.bias").values, 1), DType::f32);
  Tensor residual = b->upload(view(golden("linear.residual").bf16, 3), DType::bf16);
  Tensor out = b->empty(DType::bf16, 3, 37);
  // Sums of a GPU are in another order: a product next to a tie may be a step of its own off, and what is rounded after
  // it a step more.
  const std::vector<float>& products = golden("linear.y").values;
  const auto check = [&](const Tensor& got, const std::vector<float>& want) {
    if (!test_on_gpu()) return expect_same(download(*b, got), want);
    const std::vector<float> values = download(*b, got);
    ASSERT_EQ(values.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(values[i], want[i], 0x1p-7F * (std::abs(products[i]) + std::abs(want[i]))) << i;
    }
  };
  b->linear(x, *weight, {.bias = &bias}, out);
  check(out, products);
  b->linear(x, *weight, {.bias = &bias, .residual = &residual}, residual);  // in place
  check(residual, golden("linear.y_residual").values);
}

// --- the same on every instruction set and with any number of threads

/// Results of one pass through the operations that the instruction set may not change.
std::vector<std::vector<float>> unchanging(Backend& b, DType type, int64_t cols) {
  constexpr int64_t kRows = 300;  // more than a task
  const std::vector<float> values = random_values(static_cast<size_t>(kRows * cols), 40);
  Tensor x = b.upload(view(values, kRows), type);
  const Tensor weight = b.upload(view(random_values(static_cast<size_t>(cols), 41), 1), type);
  std::vector<Operand> outs;
  outs.push_back(operand(type));
  const mx::Format format = format_of("mxfp6_e2m3");
  outs.push_back(operand(DType::bf16, format));
  b.norm(x, {.weight = &weight}, {}, outs);
  std::vector<std::vector<float>> results{download(b, outs[0].values), download(b, outs[1].values)};
  const auto half = cols / 2;
  const Tensor cos = b.upload(view(random_values(static_cast<size_t>(2 * half), 42), 2), type);
  const Tensor sin = b.upload(view(random_values(static_cast<size_t>(2 * half), 43), 2), type);
  std::vector<int32_t> rows(kRows);
  for (size_t r = 0; r < rows.size(); ++r) rows[r] = static_cast<int32_t>(r % 2);
  b.rotate(x, 1, static_cast<int>(cols), {.cos = &cos, .sin = &sin, .rows = rows});
  results.push_back(download(b, x));
  return results;
}

TEST(Ops, NormAndRotateGiveTheSameBitsOnEveryInstructionSet) {
  MXLM_CPU_ONLY("of instruction sets");
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {2, 18, 50, 576, 577, 592, 600}) {
      const auto want = unchanging(*backend(Isa::portable, 1), type, cols);
      for (const Isa isa : isas()) {
        for (const int threads : {1, 2}) {
          const auto got = unchanging(*backend(isa, threads), type, cols);
          for (size_t i = 0; i < want.size(); ++i) expect_same(got[i], want[i]);
        }
      }
    }
  }
}

TEST_P(OpsOnEachIsa, ThreadsChangeNoBit) {
  MXLM_CPU_ONLY("of threads");
  std::vector<std::vector<float>> want;
  for (const int threads : {1, 2, 3}) {
    const auto b = backend(GetParam(), threads);
    const Tensor gate = b->upload(view(random_bf16(200UL * 90, 44), 200), DType::bf16);
    const Tensor up = b->upload(view(random_bf16(200UL * 90, 45), 200), DType::bf16);
    std::vector<Operand> outs;
    outs.push_back(operand(DType::bf16));
    b->gated_activation(gate, up, {}, {}, outs);
    const auto weight = b->prepare(view(random_bf16(150UL * 90, 46), 150), formats()[1]);
    Tensor out = b->empty(DType::bf16, 200, 150);
    b->linear(outs[0], *weight, {}, out);
    const std::vector<std::vector<float>> got{download(*b, outs[0].values), download(*b, out)};
    if (threads == 1) want = got;
    for (size_t i = 0; i < want.size(); ++i) expect_same(got[i], want[i]);
  }
}

TEST(Ops, BuffersAreUsedAgainUpToABound) {
  cpu::BufferCache cache(3000);
  {
    const auto a = cache.allocate(1000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.get()) % 64, 0U);
    EXPECT_EQ(cache.bytes_used(), 1024U);
    EXPECT_NE(cache.allocate(0), nullptr);
  }
  EXPECT_EQ(cache.bytes_used(), 0U);
  EXPECT_EQ(cache.reuses(), 0U);
  const void* first = cache.allocate(990).get();
  EXPECT_EQ(cache.allocate(1000).get(), first);
  EXPECT_EQ(cache.reuses(), 2U);
  {
    std::vector<std::shared_ptr<void>> many;
    many.reserve(5);
    for (int i = 0; i < 5; ++i) many.push_back(cache.allocate(1000));
  }
  EXPECT_LE(cache.bytes_cached(), 3000U);
  EXPECT_THROW(cache.allocate(size_t{1} << 60), Error);
  const auto survivor = cpu::BufferCache(1000).allocate(500);  // outlives its cache
  std::memset(survivor.get(), 1, 500);
}

// --- float32: against the same formulas in float64

TEST_P(OpsOnEachIsa, Float32OperationsMatchFloat64) {
  const auto b = backend(GetParam());
  constexpr int64_t kRows = 3;
  for (const int64_t cols : {1, 15, 16, 33, 64, 576, 1000}) {
    const std::vector<float> a = random_values(static_cast<size_t>(kRows * cols), 1);
    const std::vector<float> c = random_values(static_cast<size_t>(kRows * cols), 2);
    const std::vector<float> w = random_values(static_cast<size_t>(cols), 3);
    const Tensor x = b->upload(view(a, kRows), DType::f32);
    const Tensor y = b->upload(view(c, kRows), DType::f32);
    const Tensor weight = b->upload(view(w, 1), DType::f32);
    std::vector<Operand> outs;
    outs.push_back(operand(DType::f32));
    b->norm(x, {.weight = &weight, .epsilon = 1e-6F}, {}, outs);
    const std::vector<float> normed = download(*b, outs[0].values);
    b->gated_activation(x, y, {}, {}, outs);
    const std::vector<float> gated = download(*b, outs[0].values);
    for (int64_t r = 0; r < kRows; ++r) {
      double mean = 0;
      for (int64_t i = 0; i < cols; ++i) mean += std::pow(static_cast<double>(a[static_cast<size_t>(r * cols + i)]), 2);
      mean /= static_cast<double>(cols);
      for (int64_t i = 0; i < cols; ++i) {
        const auto at = static_cast<size_t>(r * cols + i);
        const double v = a[at];
        const double want = v / std::sqrt(mean + 1e-6) * w[static_cast<size_t>(i)];
        EXPECT_NEAR(normed[at], want, std::abs(want) * 6e-7);
        const double silu = v / (1 + std::exp(-v)) * c[at];
        EXPECT_NEAR(gated[at], silu, std::abs(silu) * 6e-7 + 1e-37);
      }
    }
  }
}

TEST_P(OpsOnEachIsa, RotateKeepsFloat32AndTheRestOfAHead) {
  const auto b = backend(GetParam());
  constexpr int kHeads = 2;
  constexpr int kDim = 21;
  constexpr int kHalf = 9;  // 18 of 21 dimensions turn
  const std::vector<float> a = random_values(2UL * kHeads * kDim, 4);
  std::vector<float> cosines;
  std::vector<float> sines;
  for (int i = 0; i < 3 * kHalf; ++i) {
    cosines.push_back(std::cos(0.37F * static_cast<float>(i)));
    sines.push_back(std::sin(0.37F * static_cast<float>(i)));
  }
  Tensor x = b->upload(view(a, 2), DType::f32);
  const Tensor cos = b->upload(view(cosines, 3), DType::f32);
  const Tensor sin = b->upload(view(sines, 3), DType::f32);
  const std::vector<int32_t> rows{2, 0};
  b->rotate(x, kHeads, kDim, {.cos = &cos, .sin = &sin, .rows = rows});
  std::vector<float> want = a;
  for (size_t r = 0; r < 2; ++r) {
    for (size_t h = 0; h < kHeads; ++h) {
      for (size_t i = 0; i < kHalf; ++i) {
        const size_t at = r * kHeads * kDim + h * kDim + i;
        const float c = cosines[static_cast<size_t>(rows[r]) * kHalf + i];
        const float s = sines[static_cast<size_t>(rows[r]) * kHalf + i];
        want[at] = a[at] * c + -a[at + kHalf] * s;
        want[at + kHalf] = a[at + kHalf] * c + a[at] * s;
      }
    }
  }
  expect_same(download(*b, x), want);
}

// --- operands

TEST_P(OpsOnEachIsa, ProducersQuantiseTheValueInTheModelDtype) {
  MXLM_CPU_ONLY("looks into host memory");
  const auto b = backend(GetParam());
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const int64_t cols : {1, 40, 577}) {
      const std::vector<float> a = random_values(static_cast<size_t>(4 * cols), 5);
      const std::vector<float> w = random_values(static_cast<size_t>(cols), 6);
      const Tensor x = b->upload(view(a, 4), type);
      const Tensor y = b->upload(view(a, 4), type);
      const Tensor weight = b->upload(view(w, 1), type);
      for (int producer = 0; producer < 2; ++producer) {
        std::vector<Operand> outs;
        for (const mx::Format& f : formats()) {
          outs.push_back(operand(DType::f32, f));
          if (mx::decodes_exactly_to_bf16(f)) outs.push_back(operand(DType::bf16, f));
        }
        outs.push_back(operand(type));
        outs.push_back(operand(DType::f32));
        if (producer == 0) {
          b->norm(x, {.weight = &weight}, {}, outs);
        } else {
          b->gated_activation(x, y, {}, {}, outs);
        }
        const std::vector<float> plain = download(*b, outs.back().values);
        for (const Operand& out : outs) {
          EXPECT_EQ(out.values.dtype(), out.type.storage);
          std::vector<float> want = plain;
          if (out.type.spec) {
            for (int64_t r = 0; r < 4; ++r) {
              cpu::quantize_decode_row(Isa::portable, *out.type.spec, plain.data() + r * cols, cols,
                                       want.data() + r * cols);
            }
          }
          expect_same(download(*b, out.values), want);
          for (int64_t r = 0; r < 4; ++r) {  // what the products read beyond the values is zero
            for (int64_t c = cols; c < cpu::round_up(cols, cpu::kDepth); ++c) {
              const float beyond = out.type.storage == DType::bf16 ? to_float(out.values.row<BFloat16>(r)[c])
                                                                   : out.values.row<float>(r)[c];
              EXPECT_EQ(beyond, 0.0F);
            }
          }
        }
      }
    }
  }
}

TEST_P(OpsOnEachIsa, AttentionFillsItsOperands) {
  MXLM_CPU_ONLY("looks into host memory");
  const auto b = backend(GetParam());
  const std::vector<BFloat16> values = random_bf16(7UL * 80, 30);
  const Tensor q = b->upload(view(values, 7), DType::bf16);
  const Tensor k = b->upload(view(random_bf16(7UL * 40, 31), 7), DType::bf16);
  const Tensor v = b->upload(view(random_bf16(7UL * 40, 32), 7), DType::bf16);
  Batch batch;
  batch.tokens.assign(7, 0);
  batch.offsets = {0, 3, 7};
  AttentionArgs args;
  args.heads = 4;
  args.kv_heads = 2;
  args.head_dim = 20;
  args.scale = 0.2236F;
  std::vector<Operand> one;
  one.push_back(operand(DType::bf16));
  b->attention(q, k, v, batch, args, one);
  std::vector<Operand> outs;
  outs.push_back(operand(DType::bf16, formats()[1]));
  outs.push_back(operand(DType::bf16));
  b->attention(q, k, v, batch, args, outs);
  const std::vector<float> plain = download(*b, one[0].values);
  expect_same(download(*b, outs[1].values), plain);
  std::vector<float> want(plain.size());
  for (size_t r = 0; r < 7; ++r) {
    cpu::quantize_decode_row(Isa::portable, formats()[1], plain.data() + r * 80, 80, want.data() + r * 80);
  }
  expect_same(download(*b, outs[0].values), want);
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t c = 80; c < 96; ++c) EXPECT_EQ(one[0].values.row<BFloat16>(r)[c].bits, 0);
  }
}

// --- weights: times the unit matrix they show what is in them

/// [K, N] of a weight [N, K].
std::vector<float> contents(Backend& b, const PreparedWeight& weight) {
  const int64_t k = weight.cols();
  std::vector<float> unit(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) unit[static_cast<size_t>(i * k + i)] = 1;
  Operand x = operand(weight.storage());
  x.values = b.upload(view(unit, k), x.type.storage);
  Tensor out = b.empty(DType::f32, k, weight.rows());
  b.linear(x, weight, {}, out);
  return download(b, out);
}

TEST_P(OpsOnEachIsa, PreparedWeightsHoldTheQuantisedValues) {
  const auto b = backend(GetParam());
  constexpr int64_t kN = 37;
  constexpr int64_t kK = 75;
  const std::vector<float> values = random_values(kN * kK, 7);
  std::vector<OperandSpec> specs{std::nullopt};
  for (const mx::Format& f : formats()) specs.emplace_back(f);
  for (const DType type : {DType::bf16, DType::f32, DType::f16}) {
    Host source(type, kN, kK, kK + 3, 1);  // an odd address
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t k = 0; k < kK; ++k) source.set(n, k, values[static_cast<size_t>(n * kK + k)]);
    }
    for (const OperandSpec& spec : specs) {
      const auto prepared = b->prepare(source.matrix, spec);
      EXPECT_EQ(prepared->rows(), kN);
      EXPECT_EQ(prepared->cols(), kK);
      const bool exact = spec ? mx::decodes_exactly_to_bf16(*spec) : type == DType::bf16;
      EXPECT_EQ(prepared->storage(), exact ? DType::bf16 : DType::f32);
      std::vector<float> want(kN * kK);
      for (int64_t n = 0; n < kN; ++n) {
        std::vector<float> row(kK);
        for (int64_t k = 0; k < kK; ++k) row[static_cast<size_t>(k)] = source.get(n, k);
        if (spec) cpu::quantize_decode_row(Isa::portable, *spec, row.data(), kK, row.data());
        for (int64_t k = 0; k < kK; ++k) want[static_cast<size_t>(k * kN + n)] = row[static_cast<size_t>(k)] + 0.0F;
      }
      const std::vector<float> got = contents(*b, *prepared);
      expect_same(got, want);

      const auto kept = b->keep(source.matrix, spec);
      const auto again = b->prepare(kept);
      EXPECT_EQ(again->storage(), prepared->storage());
      expect_same(contents(*b, *again), got);
      if (spec && spec->element.bits() <= 8 && spec->scale_bits <= 8) {
        const int64_t block = spec->block_size == 0 ? kK : spec->block_size;
        const int64_t row = (kK * spec->element.bits() + 7) / 8 + (kK + block - 1) / block;
        EXPECT_EQ(kept->bytes(), static_cast<size_t>(kN * row));
      } else {
        EXPECT_EQ(kept->bytes(), prepared->bytes());
      }
    }
  }
}

TEST_P(OpsOnEachIsa, SubnormalQuantisedWeightsAreKeptInFloat32) {
  MXLM_CPU_ONLY("of what the instructions for bfloat16 flush");
  const auto b = backend(GetParam());
  const mx::Format format = format_of("mxfp8_e4m3");
  for (const DType type : {DType::bf16, DType::f32}) {
    for (const float tiny : {0x1p-125F, 0x1p-126F, 0x1p-127F, 0x1p-130F}) {
      Host source(type, 3, 64, 64);
      for (int64_t r = 0; r < 3; ++r) {
        for (int64_t c = 0; c < 64; ++c) source.set(r, c, r == 1 && c >= 32 ? tiny * 1.5F : 0.25F);
      }
      const auto prepared = b->prepare(source.matrix, format);
      EXPECT_EQ(prepared->storage(), tiny < 0x1p-126F ? DType::f32 : DType::bf16) << tiny;
      const auto kept = b->prepare(b->keep(source.matrix, format));
      EXPECT_EQ(kept->storage(), prepared->storage());
      for (const auto& weight : {prepared, kept}) {
        const std::vector<float> got = contents(*b, *weight);
        EXPECT_EQ(got[0], 0.25F);
        EXPECT_EQ(got[40 * 3 + 1], tiny * 1.5F);
      }
    }
  }
}

TEST_P(OpsOnEachIsa, NanBlocksOfAWeightStayNan) {
  const auto b = backend(GetParam());
  const mx::Format format = format_of("mxfp4_e2m1");
  Host source(DType::bf16, 2, 64, 64);
  for (int64_t c = 0; c < 64; ++c) {
    source.set(0, c, 1);
    source.set(1, c, c == 40 ? std::numeric_limits<float>::quiet_NaN() : 1);
  }
  Operand x = operand(DType::bf16);
  x.values = b->upload(view(std::vector<float>(64, 1.0F), 1), DType::bf16);
  for (const auto& weight : {b->prepare(source.matrix, format), b->prepare(b->keep(source.matrix, format))}) {
    Tensor out = b->empty(DType::f32, 1, 2);
    b->linear(x, *weight, {}, out);
    const std::vector<float> got = download(*b, out);
    EXPECT_EQ(got[0], 64.0F);
    EXPECT_TRUE(std::isnan(got[1]));
  }
}

TEST(Ops, OperandTypesAreBf16WhereThatIsExact) {
  MXLM_CPU_ONLY("a GPU's operands are bfloat16 whatever the weight is");
  const auto b = backend();
  const auto exact = b->prepare(view(random_bf16(64, 8), 2), std::nullopt);
  const auto wide = b->prepare(view(random_values(64, 8), 2), std::nullopt);
  const mx::Format fp8 = formats()[1];
  const mx::Format int12 = formats()[7];
  ASSERT_FALSE(mx::decodes_exactly_to_bf16(int12));
  const auto storage = [&](const OperandSpec& spec, const auto& weight, DType model) {
    const OperandType type = b->operand_type(spec, *weight, model);
    EXPECT_EQ(type.spec, spec);
    return type.storage;
  };
  EXPECT_EQ(storage(std::nullopt, exact, DType::bf16), DType::bf16);
  EXPECT_EQ(storage(std::nullopt, exact, DType::f32), DType::f32);
  EXPECT_EQ(storage(std::nullopt, wide, DType::bf16), DType::f32);
  EXPECT_EQ(storage(fp8, exact, DType::f32), DType::bf16);
  EXPECT_EQ(storage(fp8, wide, DType::bf16), DType::f32);
  EXPECT_EQ(storage(int12, exact, DType::bf16), DType::f32);
}

// --- memory and rows

TEST_P(OpsOnEachIsa, RowsAreConvertedFromAnyAlignment) {
  const auto b = backend(GetParam());
  const std::vector<float> values = random_values(5UL * 19, 9, 5);
  for (const DType type : {DType::bf16, DType::f32, DType::f16}) {
    for (const size_t misalign : {0, 1, 3}) {
      Host table(type, 5, 19, 23, misalign);
      for (int64_t r = 0; r < 5; ++r) {
        for (int64_t c = 0; c < 19; ++c) table.set(r, c, values[static_cast<size_t>(r * 19 + c)]);
      }
      table.set(4, 0, -0.0F);
      table.set(4, 1, 0x1p-24F);  // a subnormal half
      table.set(4, 2, 0x1p-130F);
      for (const DType to : {DType::bf16, DType::f32}) {
        const auto want = [&](int64_t r, int64_t c) {
          return to == DType::f32 ? table.get(r, c) : to_float(to_bfloat16(table.get(r, c)));
        };
        Batch batch;
        batch.tokens = {4, 0, 4, 2};
        Tensor hidden = b->empty(to, 4, 19);
        b->embed(batch, table.matrix, 1, nullptr, 0, hidden);
        std::vector<float> expected;
        for (const int32_t t : batch.tokens) {
          for (int64_t c = 0; c < 19; ++c) expected.push_back(want(t, c));
        }
        expect_same(download(*b, hidden), expected);
        const std::vector<int32_t> rows{3, 1, 3};
        expected.clear();
        for (const int32_t r : rows) {
          for (int64_t c = 0; c < 19; ++c) expected.push_back(want(batch.tokens[static_cast<size_t>(r)], c));
        }
        const Tensor some = b->gather(hidden, rows);
        expect_same(download(*b, some), expected);
        Tensor same = b->empty(to, 3, 19);
        b->copy(some, same);
        expect_same(download(*b, same), expected);
      }
    }
  }
}

TEST_P(OpsOnEachIsa, NansOfAnyPayloadStayNansInBf16) {
  const auto b = backend(GetParam());
  const std::vector<float> values{std::bit_cast<float>(0x7fffffffU), std::bit_cast<float>(0xff800001U),
                                  std::bit_cast<float>(0x7f7fffffU), std::numeric_limits<float>::infinity()};
  const std::vector<float> got = download(*b, b->upload(view(values, 1), DType::bf16));
  EXPECT_TRUE(std::isnan(got[0]));
  EXPECT_TRUE(std::isnan(got[1]));
  EXPECT_EQ(got[2], std::numeric_limits<float>::infinity());
  EXPECT_EQ(got[3], std::numeric_limits<float>::infinity());
  // and through a linear's bias
  Operand x = operand(DType::bf16);
  x.values = b->upload(view(std::vector<float>(32, 1.0F), 1), DType::bf16);
  const auto weight = b->prepare(view(std::vector<BFloat16>(64, to_bfloat16(1)), 2), std::nullopt);
  const Tensor bias = b->upload(view(std::vector<float>(values.begin(), values.begin() + 2), 1), DType::f32);
  Tensor out = b->empty(DType::bf16, 1, 2);
  b->linear(x, *weight, {.bias = &bias}, out);
  for (const float y : download(*b, out)) EXPECT_TRUE(std::isnan(y));
}

TEST(Ops, TokensOutsideTheVocabularyAreAnError) {
  const auto b = backend();
  Host table(DType::bf16, 5, 8, 8);
  Tensor hidden = b->empty(DType::bf16, 1, 8);
  for (const int32_t token : {-1, 5}) {
    Batch batch;
    batch.tokens = {token};
    EXPECT_THROW(b->embed(batch, table.matrix, 1, nullptr, 0, hidden), Error);
  }
}

TEST(Ops, EmptyBatchesAreFine) {
  const auto b = backend();
  const Tensor x = b->empty(DType::bf16, 0, 40);
  const Tensor weight = b->upload(view(random_bf16(40, 1), 1), DType::bf16);
  std::vector<Operand> outs;
  outs.push_back(operand(DType::bf16));
  b->norm(x, {.weight = &weight}, {}, outs);
  EXPECT_EQ(outs[0].values.rows(), 0);
  const auto w = b->prepare(view(random_bf16(40UL * 3, 1), 3), std::nullopt);
  Tensor out = b->empty(DType::bf16, 0, 3);
  b->linear(outs[0], *w, {}, out);
  const HeadJob input{.hidden = &outs[0], .weight = w.get()};
  b->score({&input, 1}, {});
  EXPECT_EQ(b->gather(x, {}).rows(), 0);
}

TEST(Ops, AnInstructionSetTheProcessorLacksIsAnError) {
  MXLM_CPU_ONLY("of instruction sets");
  if (cpu::detect_isa() == Isa::amx_bf16) GTEST_SKIP() << "this processor has them all";
  EXPECT_THROW(backend(Isa::amx_bf16), Error);
}

}  // namespace
}  // namespace mxlm
