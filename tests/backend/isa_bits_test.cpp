// Row operations give the same bits on AVX2 as on AVX-512, whatever the length of a row and whatever its values.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/activation_rows.hpp"
#include "backend/cpu/head_rows.hpp"
#include "backend/cpu/norm_rows.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/cpu/score_rows.hpp"
#include "backend/cpu/softmax.hpp"

namespace mxlm::cpu {
namespace {

constexpr std::array<int64_t, 12> kLengths{1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 200};

class IsaBits : public testing::Test {
 protected:
  void SetUp() override {
    if (detect_isa() < Isa::avx512) GTEST_SKIP() << "this processor has no AVX-512";
  }
};

/// Values of all magnitudes; with `special`, subnormals, zeros, Infs and NaNs among them.
template <typename T>
std::vector<T> some_values(int64_t n, uint32_t seed, bool special) {
  constexpr std::array kSpecial{0.0F,
                                -0.0F,
                                1e-40F,
                                -1e-40F,
                                3e38F,
                                -3e38F,
                                std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity(),
                                std::numeric_limits<float>::quiet_NaN()};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> out;
  out.reserve(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    float x = normal(random) * std::exp(2 * normal(random));
    if (special && random() % 8 == 0) x = kSpecial[random() % kSpecial.size()];
    if constexpr (sizeof(T) == 2) {
      out.push_back(to_bfloat16(x));
    } else {
      out.push_back(x);
    }
  }
  return out;
}

uint32_t comparable(float x) { return std::isnan(x) ? 0x7fc00000U : std::bit_cast<uint32_t>(x); }
uint32_t comparable(BFloat16 x) { return comparable(to_float(x)); }

/// Calls f(isa, out) for both instruction sets on copies of `start` and compares what they leave there.
template <typename T, typename F>
void expect_same_bits(const std::vector<T>& start, const std::string& what, const F& f) {
  std::vector<T> avx2 = start, avx512 = start;
  f(Isa::avx2, avx2.data());
  f(Isa::avx512, avx512.data());
  for (size_t i = 0; i < start.size(); ++i) {
    ASSERT_EQ(comparable(avx2[i]), comparable(avx512[i])) << what << " at " << i << " of " << start.size();
  }
}

template <typename T>
void compare_rows(int64_t n, bool special) {
  const auto seed = static_cast<uint32_t>(n);
  const std::vector<T> x = some_values<T>(n, seed, special), w = some_values<T>(n, seed + 1, special);
  const std::vector<float> sums = some_values<float>(n, seed + 2, special),
                           bias = some_values<float>(n, seed + 3, false);
  // One value more than the row, which must stay.
  const std::vector<T> out(static_cast<size_t>(n) + 1, T{});

  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    for (const bool before : {true, false}) {
      const NormRow<T> norm{.kind = kind,
                            .weight = w.data(),
                            .bias = kind == NormKind::layer ? x.data() : nullptr,
                            .epsilon = 1e-5F,
                            .weight_offset = before ? 0.0F : 1.0F,
                            .round_before_weight = before};
      expect_same_bits(out, "norm", [&](Isa isa, T* y) { norm_row(isa, norm, x.data(), n, y); });
    }
  }
  for (const Activation a : {Activation::silu, Activation::gelu_tanh, Activation::gelu_erf, Activation::gelu_new,
                             Activation::quick_gelu, Activation::relu, Activation::relu_squared}) {
    const std::string name = "activation " + std::to_string(static_cast<int>(a));
    expect_same_bits(out, name, [&](Isa isa, T* y) { activation_row(isa, a, x.data(), n, y); });
  }
  const std::vector<T> both = some_values<T>(2 * n, seed + 4, special);
  for (const Activation a : {Activation::silu, Activation::swiglu_oai}) {
    for (const bool interleaved : {false, true}) {
      const GatedArgs args{.activation = a, .interleaved = interleaved, .limit = 7};
      expect_same_bits(out, "gated", [&](Isa isa, T* y) { gated_row(isa, args, both.data(), both.data() + n, n, y); });
    }
  }
  for (const float multiplier : {1.0F, 0.3F}) {
    for (const T* residual : {static_cast<const T*>(nullptr), w.data()}) {
      expect_same_bits(out, "finish", [&](Isa isa, T* y) {
        finish_row(isa, sums.data(), residual == nullptr ? nullptr : bias.data(), multiplier, residual, n, y);
      });
    }
    expect_same_bits(out, "add", [&](Isa isa, T* y) { add_row(isa, x.data(), w.data(), multiplier, n, y); });
  }
  expect_same_bits(out, "add wide", [&](Isa isa, T* y) { add_row(isa, sums.data(), w.data(), 0.3F, n, y); });
  expect_same_bits(x, "scale", [&](Isa isa, T* y) { scale_row(isa, 0.7F, n, y); });
  expect_same_bits(x, "clamp", [&](Isa isa, T* y) { clamp_row(isa, 0.7F, n, y); });
  expect_same_bits(sums, "accumulate", [&](Isa isa, float* y) { accumulate_row(isa, x.data(), 0.7F, n, y); });

  const auto half = static_cast<int>(n);
  const std::vector<T> heads = some_values<T>(int64_t{3} * (2 * n + 1), seed + 5, special);
  const std::vector<T> narrow = some_values<T>(2 * n, seed + 6, false);
  const std::vector<float> wide = some_values<float>(2 * n, seed + 7, false);
  for (const bool interleaved : {false, true}) {
    const Rotation r{.heads = 3, .head_stride = 2 * half + 1, .half = half, .interleaved = interleaved};
    expect_same_bits(heads, "rotate", [&](Isa isa, T* y) { rotate_row(isa, r, y, narrow.data(), narrow.data() + n); });
    expect_same_bits(heads, "rotate wide", [&](Isa isa, T* y) { rotate_row(isa, r, y, wide.data(), wide.data() + n); });
  }
}

TEST_F(IsaBits, OfRowsAreTheSame) {
  for (const int64_t n : kLengths) {
    for (const bool special : {false, true}) {
      compare_rows<float>(n, special);
      compare_rows<BFloat16>(n, special);
    }
  }
}

template <typename P>
void compare_softmax(int64_t keys, int64_t hidden, int64_t visible, bool special) {
  constexpr int64_t kRows = 19;
  const std::vector<float> scores = some_values<float>(kRows * keys, static_cast<uint32_t>(keys + hidden), special);
  const std::vector<P> p(static_cast<size_t>(kRows * keys));
  std::vector<std::vector<float>> state;
  expect_same_bits(p, "softmax", [&](Isa isa, P* out) {
    std::vector<float> rows(kRows * (kSumLanes + 2));
    SoftmaxBlock block{.rows = kRows,
                       .keys = keys,
                       .visible = visible,
                       .hidden = hidden,
                       .log2_scale = 0.7F,
                       .scores = scores.data(),
                       .score_stride = keys,
                       .p = out,
                       .p_stride = keys,
                       .maximum = rows.data(),
                       .sums = rows.data() + kRows,
                       .factors = rows.data() + kRows * (kSumLanes + 1)};
    std::fill_n(block.maximum, kRows, -std::numeric_limits<float>::infinity());
    const DType type = sizeof(P) == 2 ? DType::bf16 : DType::f32;
    softmax_block(isa, type, block);
    block.hidden = -kAllKeys;  // once more on sums that have begun
    softmax_block(isa, type, block);
    std::vector<float> divided(static_cast<size_t>(kRows * keys));
    rescale_add(isa, kRows, keys, block.factors, scores.data(), divided.data());
    std::vector<P> result(divided.size());
    normalise_rows(isa, kRows, keys - 3, block.sums, divided.data(), keys, type, result.data(), keys);
    for (const P x : result) divided.push_back(std::bit_cast<float>(comparable(x)));
    rows.insert(rows.end(), divided.begin(), divided.end());
    state.push_back(rows);
  });
  ASSERT_EQ(state.size(), 2U);
  for (size_t i = 0; i < state[0].size(); ++i) {
    ASSERT_EQ(comparable(state[0][i]), comparable(state[1][i])) << "state of a softmax at " << i;
  }
}

TEST_F(IsaBits, OfASoftmaxAreTheSame) {
  for (const int64_t keys : {16, 32, 48, 160}) {
    for (const int64_t hidden : {-kAllKeys, int64_t{-3}, int64_t{5}}) {
      for (const bool special : {false, true}) {
        compare_softmax<float>(keys, hidden, keys / 2, special);
        compare_softmax<BFloat16>(keys, hidden, keys / 2, special);
      }
    }
  }
}

TEST_F(IsaBits, OfScoresAreTheSame) {
  for (const int64_t n : kLengths) {
    const std::vector<float> x = some_values<float>(n, static_cast<uint32_t>(n), true);
    for (const float softcap : {0.0F, 30.0F}) {
      expect_same_bits(x, "logits", [&](Isa isa, float* y) { transform_logits(isa, 0.3F, softcap, n, y); });
      const ScoreTransform transform{.scale = 0.1F, .softcap = softcap, .slope = 0.25F};
      expect_same_bits(x, "scores", [&](Isa isa, float* y) { transform_scores(isa, transform, 40, 7, 1, n, y, n); });
    }
  }
}

TEST_F(IsaBits, OfTheHeadAreTheSame) {
  for (const bool special : {false, true}) {
    for (const bool self : {false, true}) {
      std::vector<TokenScore> scores;
      for (const Isa isa : {Isa::avx2, Isa::avx512}) {
        TokenState baseline, variant;
        baseline.self = variant.self = self;
        for (int64_t first = 0; first < 500; first += 100) {
          const int64_t count = first == 400 ? 77 : 100;
          const auto seed = static_cast<uint32_t>(first);
          std::vector<float> a = some_values<float>(112, seed, false), b = some_values<float>(112, seed + 1, special);
          const std::vector<float> bias = some_values<float>(count, seed + 2, false);
          std::vector<float> powers(112);
          LogitChunk chunk{.logits = a.data(), .bias = bias.data(), .first = first, .count = count, .target = 123};
          const double rescale = add_baseline_chunk(isa, chunk, baseline, powers.data());
          chunk.logits = b.data();
          add_variant_chunk(isa, chunk, variant, a.data(), powers.data(), rescale);
        }
        scores.push_back(finish_token(baseline, baseline));
        scores.push_back(finish_token(variant, baseline));
      }
      for (size_t i = 0; i < 2; ++i) {
        const TokenScore &x = scores[i], &y = scores[i + 2];
        const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
        EXPECT_TRUE(same(x.nll, y.nll) && same(x.kld, y.kld) && same(x.kld_reverse, y.kld_reverse));
        EXPECT_TRUE(same(x.entropy, y.entropy) && same(x.p, y.p));
        EXPECT_EQ(x.top1, y.top1);
        EXPECT_EQ(x.finite, y.finite);
      }
    }
  }
}

}  // namespace
}  // namespace mxlm::cpu
