// Stages on the CPU backend: every instruction set against the definitions of mx/reference_format.hpp, and products
// against their float64 sums.

#include "mx/reference_format.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/quantize.hpp"
#include "backend/cpu/reference_formats.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

using cpu::Isa;
using cpu::Order;
using mx::Format;
using mx::Scaling;

float widen(float x) { return x; }
float widen(BFloat16 x) { return to_float(x); }

template <typename T>
T narrow(float x) {
  if constexpr (sizeof(T) == 2) {
    return to_bfloat16(x);
  } else {
    return x;
  }
}

/// Values of every exponent, ties of short mantissas, zeros; with `specials` NaN and Inf, too.
template <typename T>
std::vector<T> hard_row(int64_t n, int exponent, int spread, bool specials, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<T> out;
  for (int64_t i = 0; i < n; ++i) {
    const auto field = static_cast<uint32_t>(std::clamp(exponent - static_cast<int>(random() % spread), 0, 254));
    uint32_t fraction = random() & 0x7fffffU;
    if (random() % 2 == 0) fraction &= ~0U << (random() % 24);
    uint32_t bits = field << 23 | (fraction & 0x7fffffU) | (random() & 0x80000000U);
    if (random() % 16 == 0) bits &= 0x80000000U;
    if (specials && random() % 16 == 0) bits = random() % 2 == 0 ? 0x7f800000U : 0xffc00000U;
    out.push_back(narrow<T>(std::bit_cast<float>(bits)));
  }
  return out;
}

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

template <typename In, typename Out>
void compare_rows(const mx::ReferenceFormat& stage, Format f, Isa isa, const std::vector<In>& x) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> wide(x.size()), expected(x.size());
  for (size_t i = 0; i < x.size(); ++i) wide[i] = widen(x[i]);
  std::vector<Out> got(x.size());
  if (mx::has_row_scales(f)) {
    const uint32_t amax = mx::block_max(wide.data(), n);
    const cpu::OuterScale outer{mx::outer_scale(f, amax), amax};
    EXPECT_EQ(cpu::largest_magnitude(isa, x.data(), n, false), amax);
    mx::quantize_scaled_row(f, outer.scale, amax, nullptr, wide.data(), n, expected.data());
    cpu::quantize_scaled_row(isa, f, outer, nullptr, x.data(), n, got.data());
  } else {
    for (size_t i = 0; i < x.size(); ++i) {
      if (f.scaling == Scaling::none) {
        expected[i] = mx::cast_decode(f, wide[i]);
      } else {
        mx::quantize_decode_block(f, &wide[i], 1, &expected[i]);
      }
      if (sizeof(Out) == 2) expected[i] = to_float(to_bfloat16(expected[i]));
    }
    cpu::quantize_decode_row(isa, f, x.data(), n, got.data());
  }
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(same(widen(got[i]), expected[i]))
        << stage.name << " " << isa_name(isa) << " " << mx::rounding_name(f.rounding) << ": " << wide[i] << " gives "
        << widen(got[i]) << ", not " << expected[i];
  }
  if (!mx::keeps_codes(f)) return;
  std::vector<uint8_t> codes(static_cast<size_t>(cpu::code_bytes(f, n)), 0xff);
  std::vector<uint8_t> scales(static_cast<size_t>(cpu::stage_scale_bytes(f, n)) + 1, 0xff);
  const uint32_t amax = mx::block_max(wide.data(), n);
  cpu::encode_stage_row(isa, f, {mx::has_row_scales(f) ? mx::outer_scale(f, amax) : 1, amax}, x.data(), n, codes.data(),
                        scales.data());
  EXPECT_EQ(scales.back(), 0xff);
  std::vector<Out> decoded(x.size());
  cpu::decode_stage_row(f, codes.data(), scales.data(), n, decoded.data());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(same(widen(decoded[i]), expected[i])) << stage.name << " code of " << wide[i];
  }
}

TEST(StageRows, EveryInstructionSetGivesTheDefinitionsBits) {
  for (const mx::ReferenceFormat& stage : mx::kReferenceFormats) {
    for (const Isa isa : test_isas()) {
      uint32_t seed = 0;
      for (const int64_t n : {1, 15, 16, 37, 128}) {
        for (const int exponent : {3, 60, 127, 132, 254}) {
          for (const bool specials : {false, true}) {
            for (const mx::Rounding rounding : {mx::Rounding::even, mx::Rounding::nearest, mx::Rounding::toward_zero}) {
              Format f = stage.format;
              if (rounding != f.rounding && (!stage.takes_rounding || n != 37)) continue;
              f.rounding = rounding;
              const int spread = seed % 2 == 0 ? 24 : 255;
              compare_rows<float, float>(stage, f, isa, hard_row<float>(n, exponent, spread, specials, ++seed));
              compare_rows<BFloat16, BFloat16>(stage, f, isa,
                                               hard_row<BFloat16>(n, exponent, spread, specials, ++seed));
              if (n == 37) {
                compare_rows<float, BFloat16>(stage, f, isa, hard_row<float>(n, exponent, spread, specials, ++seed));
                compare_rows<BFloat16, float>(stage, f, isa, hard_row<BFloat16>(n, exponent, spread, specials, ++seed));
              }
              if (testing::Test::HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

// --- products

struct Problem {
  int64_t rows = 7, k = 80, n = 37;
  std::vector<int64_t> windows{0, 3, 7};
  std::vector<float> x, w;

  explicit Problem(bool bfloat) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    const auto value = [&](float scale) {
      const float v = normal(random) * scale;
      return bfloat ? to_float(to_bfloat16(v)) : v;
    };
    for (int64_t i = 0; i < rows * k; ++i) x.push_back(value(1));
    for (int64_t i = 0; i < n * k; ++i) w.push_back(value(0.1F));
    x[static_cast<size_t>(1 * k + 5)] = 11;    // first window
    x[static_cast<size_t>(4 * k + 5)] = -7.5;  // second
    x[static_cast<size_t>(6 * k + 60)] = 6;
    for (int64_t i = 0; i < k; ++i) x[static_cast<size_t>(2 * k + i)] = 0;
  }
};

/// What an operand stands for, in float64: by the definitions, with a scale or flags for each tensor [first, last).
std::vector<double> decoded(const OperandSpec& spec, const std::vector<float>& x, int64_t k,
                            const std::vector<int64_t>& tensors, bool leave_outliers) {
  std::vector<double> out(x.begin(), x.end());
  if (!spec) return out;
  const Format& f = *spec;
  for (size_t t = 0; t + 1 < tensors.size(); ++t) {
    std::vector<uint8_t> outlier(static_cast<size_t>(k));
    const bool outliers = leave_outliers && f.scaling == Scaling::int8_outliers;
    for (int64_t i = tensors[t] * k; outliers && i < tensors[t + 1] * k; ++i) {
      if (mx::is_outlier(x[static_cast<size_t>(i)])) outlier[static_cast<size_t>(i % k)] = 1;
    }
    for (int64_t r = tensors[t]; r < tensors[t + 1]; ++r) {
      const float* row = x.data() + r * k;
      std::vector<float> y(static_cast<size_t>(k));
      double scale = 1;
      if (mx::has_row_scales(f)) {
        const bool whole = f.scaling == Scaling::tensor || f.scaling == Scaling::nvfp4;
        std::vector<float> seen(whole ? x.data() + tensors[t] * k : row,
                                whole ? x.data() + tensors[t + 1] * k : row + k);
        for (float& v : seen) v = outliers && mx::is_outlier(v) ? 0 : v;
        const uint32_t amax = mx::block_max(seen.data(), static_cast<int64_t>(seen.size()));
        const float outer = mx::outer_scale(f, amax);
        scale = outer;
        mx::quantize_scaled_row(f, outer, amax, outlier.data(), row, k, y.data());
      } else {
        cpu::quantize_decode_row(Isa::portable, f, row, k, y.data());
      }
      for (int64_t i = 0; i < k; ++i) {
        out[static_cast<size_t>(r * k + i)] =
            outlier[static_cast<size_t>(i)] != 0 ? row[i] : static_cast<double>(y[static_cast<size_t>(i)]) * scale;
      }
    }
  }
  return out;
}

template <typename T>
std::vector<T> stored(const std::vector<float>& x) {
  std::vector<T> out;
  for (const float v : x) out.push_back(narrow<T>(v));
  return out;
}

template <typename T>
void check_products(Isa isa, const OperandSpec& weights, const OperandSpec& activations) {
  constexpr DType type = sizeof(T) == 2 ? DType::bf16 : DType::f32;
  const Problem p(type == DType::bf16);
  const auto backend = test_backend({.threads = 2, .isa = isa, .order = Order::forward});
  const auto x = stored<T>(p.x), w = stored<T>(p.w);
  const HostMatrix source{type, p.n, p.k, p.k, reinterpret_cast<const std::byte*>(w.data())};
  const auto weight = backend->prepare(source, weights);
  const auto kept = backend->keep(source, weights);
  const auto again = backend->prepare(kept);
  backend->forget(source);
  const Tensor hidden = backend->upload({type, p.rows, p.k, p.k, reinterpret_cast<const std::byte*>(x.data())}, type);
  Operand operand;
  operand.type = backend->operand_type(activations, *weight, type);
  backend->operands(hidden, p.windows, {&operand, 1});
  Tensor y = backend->empty(DType::f32, p.rows, p.n), y_again = backend->empty(DType::f32, p.rows, p.n);
  backend->linear(operand, *weight, {}, y);
  backend->linear(operand, *again, {}, y_again);
  std::vector<float> got(static_cast<size_t>(p.rows * p.n)), got_again(got.size()), logits(got.size());
  backend->download(y, got);
  backend->download(y_again, got_again);
  EXPECT_EQ(std::memcmp(got.data(), got_again.data(), got.size() * sizeof(float)), 0) << "kept";
  backend->logits({.hidden = &operand, .weight = weight.get()}, logits);

  const auto a = decoded(activations, p.x, p.k, p.windows, true);
  const auto b = decoded(weights, p.w, p.k, {0, p.n}, false);
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < p.k; ++i) {
        const double term = a[static_cast<size_t>(r * p.k + i)] * b[static_cast<size_t>(j * p.k + i)];
        sum += term;
        magnitude += std::abs(term);
      }
      const auto at = static_cast<size_t>(r * p.n + j);
      // the bound of a product, and a rounding for each scale and sum after it
      ASSERT_NEAR(got[at], sum, magnitude * std::ldexp(1, -21)) << "output " << r << ", " << j;
      ASSERT_NEAR(logits[at], sum, magnitude * std::ldexp(1, -21)) << "logit " << r << ", " << j;
    }
  }

  // Each window alone gives the same bits, and the head the same scores as from its logits.
  for (size_t t = 0; t + 1 < p.windows.size(); ++t) {
    const int64_t rows = p.windows[t + 1] - p.windows[t];
    const Tensor part = backend->upload(
        {type, rows, p.k, p.k, reinterpret_cast<const std::byte*>(x.data() + p.windows[t] * p.k)}, type);
    Operand own;
    own.type = operand.type;
    const std::vector<int64_t> one{0, rows};
    backend->operands(part, one, {&own, 1});
    Tensor z = backend->empty(DType::f32, rows, p.n);
    backend->linear(own, *weight, {}, z);
    std::vector<float> alone(static_cast<size_t>(rows * p.n));
    backend->download(z, alone);
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(alone[i], got[static_cast<size_t>(p.windows[t] * p.n) + i]);
  }
  std::vector<TokenScore> scores(static_cast<size_t>(p.rows));
  std::vector<int32_t> targets(static_cast<size_t>(p.rows), 3);
  const HeadJob input{.hidden = &operand, .weight = weight.get(), .scores = scores};
  backend->score({&input, 1}, targets);
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* row = logits.data() + r * p.n;
    double total = 0;
    for (int64_t j = 0; j < p.n; ++j) total += std::exp(static_cast<double>(row[j]));
    EXPECT_NEAR(scores[static_cast<size_t>(r)].nll, std::log(total) - row[3], 1e-5);
  }
}

TEST(StageProducts, AreTheProductsOfTheDefinitions) {
  const OperandSpec mxfp4 = mx::parse_format("mxfp4");
  for (const Isa isa : test_isas()) {
    for (const mx::ReferenceFormat& stage : mx::kReferenceFormats) {
      SCOPED_TRACE(std::string(stage.name) + " " + isa_name(isa));
      const OperandSpec spec = stage.format;
      check_products<float>(isa, spec, spec);
      check_products<BFloat16>(isa, spec, spec);
      check_products<float>(isa, mxfp4, spec);
      check_products<BFloat16>(isa, spec, std::nullopt);
      check_products<BFloat16>(isa, std::nullopt, spec);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(StageProducts, KeptWeightsTakeWhatTheyShould) {
  MXLM_CPU_ONLY("of the layout of kept weights");
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = Order::forward});
  const std::vector<float> w(64 * 128, 0.5F);
  const HostMatrix source{DType::f32, 64, 128, 128, reinterpret_cast<const std::byte*>(w.data())};
  const auto bytes = [&](const char* name) { return backend->keep(source, mx::parse_format(name))->bytes(); };
  EXPECT_EQ(bytes("mxfp4"), 64U * (64 + 4));
  EXPECT_EQ(bytes("nvfp4"), 64U * (64 + 8 + 4));
  EXPECT_EQ(bytes("fp8_e4m3_row"), 64U * (128 + 4));
  EXPECT_EQ(bytes("fp8_e5m2_unscaled"), 64U * 128);
  EXPECT_EQ(bytes("bf16"), 64U * 128 * 2);
}

TEST(QuantizedOutputs, FollowTheBiasAndPrecedeTheResidual) {
  for (const Isa isa : test_isas()) {
    for (const char* name : {"mxfp4", "mxfp8", "mxint16", "fp8_e4m3_row", "bf16"}) {
      SCOPED_TRACE(std::string(name) + " " + isa_name(isa));
      const Format format = mx::parse_format(name).value();
      const Problem p(true);
      const auto backend = test_backend({.threads = 2, .isa = isa, .order = Order::forward});
      const auto check = [&]<typename T>(T) {
        constexpr DType type = sizeof(T) == 2 ? DType::bf16 : DType::f32;
        const auto x = stored<T>(p.x), w = stored<T>(p.w);
        const auto bytes = [](const auto& v) { return reinterpret_cast<const std::byte*>(v.data()); };
        const HostMatrix source{type, p.n, p.k, p.k, bytes(w)};
        const auto weight = backend->prepare(source, std::nullopt);
        backend->forget(source);
        const Tensor hidden = backend->upload({type, p.rows, p.k, p.k, bytes(x)}, type);
        Operand operand;
        operand.type = backend->operand_type(std::nullopt, *weight, type);
        backend->operands(hidden, p.windows, {&operand, 1});
        const std::vector<float> bias_values(static_cast<size_t>(p.n), 0.37F);
        const Tensor bias = backend->upload({DType::f32, 1, p.n, p.n, bytes(bias_values)}, DType::f32);
        const auto run = [&](const LinearEpilogue& epilogue, Tensor& out) {
          backend->linear(operand, *weight, epilogue, out);
          std::vector<float> values(static_cast<size_t>(p.rows * p.n));
          backend->download(out, values);
          return values;
        };
        Tensor plain = backend->empty(type, p.rows, p.n), out = backend->empty(type, p.rows, p.n);
        std::vector<float> expected = run({.bias = &bias}, plain);
        for (int64_t r = 0; r < p.rows; ++r) {
          const std::vector<float> row(expected.begin() + r * p.n, expected.begin() + (r + 1) * p.n);
          const std::vector<double> y = decoded(format, row, p.n, {0, 1}, false);
          for (int64_t i = 0; i < p.n; ++i) {
            const float value = widen(narrow<T>(static_cast<float>(y[static_cast<size_t>(i)])));
            expected[static_cast<size_t>(r * p.n + i)] = value;
          }
        }
        const std::vector<float> got = run({.bias = &bias, .outputs = format}, out);
        for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], expected[i]) << i;
        // The residual is the output itself, as in a model; the multiplier comes before it.
        Tensor sum = backend->empty(type, p.rows, p.n);
        const std::vector<float> before = run({.bias = &bias}, sum);
        const std::vector<float> total =
            run({.bias = &bias, .residual = &sum, .outputs = format, .multiplier = 0.5F}, sum);
        for (size_t i = 0; i < got.size(); ++i) {
          const float half = widen(narrow<T>(expected[i] * 0.5F));
          ASSERT_EQ(total[i], widen(narrow<T>(half + before[i]))) << i;
        }
      };
      check(0.0F);
      check(BFloat16{});
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace mxlm
