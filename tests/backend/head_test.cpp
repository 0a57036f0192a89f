// The LM head of the CPU backend against float64.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"

namespace mxlm {
namespace {

using cpu::Isa;

std::unique_ptr<Backend> backend(Isa isa, int threads) {
  CpuOptions options;
  options.threads = threads;
  options.isa = isa;
  return make_cpu_backend(options);
}

HostMatrix view(const std::vector<float>& values, int64_t rows) {
  const auto cols = static_cast<int64_t>(values.size()) / rows;
  return {DType::f32, rows, cols, cols, reinterpret_cast<const std::byte*>(values.data())};
}

/// Figures of one token from its float32 logits, in float64.
struct Wanted : TokenScore {
  // Means of |logit_b - logit_v| under the baseline and under the variant: their rounding is part of the two KLs.
  double change = 0, change_reverse = 0;
  double reverse = 0;         // KL(variant || baseline)
  double jensen_shannon = 0;  // of the two
};
Wanted reference(const float* baseline, const float* variant, int64_t n, int32_t target) {
  const auto log_sum_exp = [n](const float* x) {
    const double max = *std::max_element(x, x + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
    return max + std::log(sum);
  };
  Wanted s;
  const double b = log_sum_exp(baseline);
  const double v = log_sum_exp(variant);
  s.nll = v - variant[target];
  s.p = static_cast<float>(std::exp(-s.nll));
  for (int64_t i = 0; i < n; ++i) {
    const double log_p = baseline[i] - b;
    s.kld += std::exp(log_p) * (log_p - (variant[i] - v));
    s.change += std::exp(log_p) * std::abs(baseline[i] - variant[i]);
    const double log_q = variant[i] - v;
    s.reverse += std::exp(log_q) * (log_q - log_p);
    s.change_reverse += std::exp(log_q) * std::abs(baseline[i] - variant[i]);
    const double log_mean = std::log((std::exp(log_p) + std::exp(log_q)) / 2);
    if (std::isfinite(log_mean)) {
      s.jensen_shannon += (std::exp(log_p) * (log_p - log_mean) + std::exp(log_q) * (log_q - log_mean)) / 2;
    }
  }
  s.top1 = static_cast<int32_t>(std::max_element(variant, variant + n) - variant);
  return s;
}

struct Head {
  Head(Backend& b, int64_t rows, int64_t vocabulary, float scale, int variants, float change, bool with_bias)
      : targets(static_cast<size_t>(rows)) {
    constexpr int64_t kWidth = 48;
    std::mt19937 random(static_cast<uint32_t>(rows * 7919 + vocabulary));
    std::normal_distribution<float> normal;
    std::vector<float> w(static_cast<size_t>(vocabulary * kWidth));
    for (float& x : w) x = to_float(to_bfloat16(normal(random)));
    std::vector<float> x(static_cast<size_t>(rows * kWidth));
    for (float& v : x) v = normal(random) * scale;
    weight = b.prepare(view(w, vocabulary), std::nullopt);
    if (with_bias) {
      std::vector<float> values(static_cast<size_t>(vocabulary));
      for (float& v : values) v = normal(random);
      bias = b.upload(view(values, 1), DType::f32);
    }
    for (int32_t& t : targets) t = static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary));
    for (int i = 0; i <= variants; ++i) {
      Operand o;
      o.type.storage = DType::f32;
      o.values = b.upload(view(x, rows), DType::f32);
      hidden.push_back(std::move(o));
      for (float& v : x) v += change * normal(random) * scale;
    }
    scores.assign(hidden.size(), std::vector<TokenScore>(static_cast<size_t>(rows)));
    seconds.assign(hidden.size(), 0);
  }
  std::vector<HeadJob> inputs(ScoreKind kind = ScoreKind::next_token) {
    std::vector<HeadJob> all;
    for (size_t i = 0; i < hidden.size(); ++i) {
      all.push_back({.hidden = &hidden[i],
                     .weight = weight.get(),
                     .bias = bias.empty() ? nullptr : &bias,
                     .scores = scores[i],
                     .seconds = &seconds[i],
                     .kind = kind});
    }
    return all;
  }

  std::shared_ptr<const PreparedWeight> weight;
  Tensor bias;
  std::vector<Operand> hidden;
  std::vector<int32_t> targets;
  std::vector<std::vector<TokenScore>> scores;
  std::vector<double> seconds;
};

/// Every instruction set is a parameter, whatever there is: finding out so early would fix the answer of detect_isa()
/// before other tests of this program lower it.
class HeadOnEachIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > cpu::detect_isa()) GTEST_SKIP() << "this processor lacks it";
  }
};
INSTANTIATE_TEST_SUITE_P(Isa, HeadOnEachIsa,
                         testing::Values(Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16),
                         [](const auto& which) { return std::string(isa_name(which.param)); });

TEST_P(HeadOnEachIsa, ScoresMatchFloat64) {
  const auto b = backend(GetParam(), 2);
  for (const auto& [rows, vocabulary, scale, with_bias] :
       {std::tuple{1, 1, 1.0F, false}, std::tuple{3, 17, 1.0F, true}, std::tuple{33, 300, 0.01F, true},
        std::tuple{70, 1000, 1.0F, false}, std::tuple{5, 2500, 4.0F, true}}) {
    Head head(*b, rows, vocabulary, scale, 2, 0.05F, with_bias);
    auto inputs = head.inputs();
    b->score(inputs, head.targets);
    std::vector<std::vector<float>> logits;
    for (const HeadJob& input : inputs) {
      logits.emplace_back(static_cast<size_t>(rows * vocabulary));
      b->logits(input, logits.back());
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_GT(head.seconds[i], 0);
      for (int64_t r = 0; r < rows; ++r) {
        const Wanted want = reference(logits[0].data() + r * vocabulary, logits[i].data() + r * vocabulary, vocabulary,
                                      head.targets[static_cast<size_t>(r)]);
        const TokenScore& got = head.scores[i][static_cast<size_t>(r)];
        EXPECT_NEAR(got.nll, want.nll, 3e-7) << rows << " x " << vocabulary << " input " << i;
        EXPECT_NEAR(got.kld, i == 0 ? 0 : want.kld, 2e-7 + 1e-7 * want.change) << rows << " x " << vocabulary;
        EXPECT_NEAR(got.kld_reverse, i == 0 ? 0 : want.reverse, 2e-7 + 2e-7 * want.change_reverse)
            << rows << " x " << vocabulary;
        EXPECT_TRUE(std::isnan(got.jensen_shannon));  // nobody asked for it
        EXPECT_NEAR(got.p, want.p, 1e-6 * want.p + 1e-37);
        EXPECT_EQ(got.top1, want.top1);
        EXPECT_TRUE(got.finite);
      }
    }
  }
}

/// -sum p ln(p + 1e-12), the prototype's formula, in float64.
double entropy(const float* logits, int64_t n) {
  const double max = *std::max_element(logits, logits + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(logits[i] - max);
  double out = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double p = std::exp(logits[i] - max) / sum;
    out -= p * std::log(p + 1e-12);
  }
  return out;
}

TEST_P(HeadOnEachIsa, JensenShannonDivergencesMatchFloat64) {
  const auto b = backend(GetParam(), 2);
  // From nearly equal distributions to those that have nothing in common.
  for (const auto& [scale, change] :
       {std::pair{1.0F, 0.0F}, {1.0F, 1e-4F}, {1.0F, 0.05F}, {1.0F, 1.0F}, {8.0F, 2.0F}}) {
    constexpr int64_t kRows = 40, kVocabulary = 2500;
    for (const bool with_bias : {false, true}) {
      Head head(*b, kRows, kVocabulary, scale, 2, change, with_bias),
          plain(*b, kRows, kVocabulary, scale, 2, change, with_bias);
      auto inputs = head.inputs();
      for (HeadJob& input : inputs) input.jensen_shannon = true;
      b->score(inputs, head.targets);
      b->score(plain.inputs(), plain.targets);
      std::vector<std::vector<float>> logits;
      for (const HeadJob& input : inputs) {
        logits.emplace_back(static_cast<size_t>(kRows * kVocabulary));
        b->logits(input, logits.back());
      }
      for (size_t i = 0; i < inputs.size(); ++i) {
        for (int64_t r = 0; r < kRows; ++r) {
          const Wanted want =
              reference(logits[0].data() + r * kVocabulary, logits[i].data() + r * kVocabulary, kVocabulary, 0);
          const TokenScore& got = head.scores[i][static_cast<size_t>(r)];
          const double wanted = i == 0 ? 0 : want.jensen_shannon;
          EXPECT_NEAR(got.jensen_shannon, wanted, 2e-9 + 3e-6 * wanted) << "scale " << scale << ", change " << change;
          EXPECT_EQ(got.nll, plain.scores[i][static_cast<size_t>(r)].nll);
          EXPECT_EQ(got.kld, plain.scores[i][static_cast<size_t>(r)].kld);
        }
      }
    }
  }
}

TEST_P(HeadOnEachIsa, OwnTopTokensAndEntropiesMatchFloat64) {
  const auto b = backend(GetParam(), 2);
  for (const auto& [rows, vocabulary, scale, with_bias] :
       {std::tuple{1, 1, 1.0F, false}, std::tuple{3, 17, 1.0F, true}, std::tuple{33, 300, 0.01F, true},
        std::tuple{70, 1000, 1.0F, false}, std::tuple{5, 2500, 4.0F, true}, std::tuple{40, 2500, 0.2F, false}}) {
    Head head(*b, rows, vocabulary, scale, 1, 0.05F, with_bias);
    auto inputs = head.inputs(ScoreKind::self);
    b->score(inputs, head.targets);
    auto ordinary = head.scores;
    b->score(head.inputs(), head.targets);
    std::swap(ordinary, head.scores);
    std::vector<float> logits(static_cast<size_t>(rows * vocabulary));
    for (size_t i = 0; i < inputs.size(); ++i) {
      b->logits(inputs[i], logits);
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = logits.data() + r * vocabulary;
        const TokenScore& got = head.scores[i][static_cast<size_t>(r)];
        const Wanted want = reference(row, row, vocabulary, got.top1);
        EXPECT_NEAR(got.nll, want.nll, 3e-7) << rows << " x " << vocabulary << " input " << i;
        EXPECT_NEAR(got.p, want.p, 1e-6 * want.p);
        EXPECT_EQ(got.top1, want.top1);
        EXPECT_NEAR(got.entropy, entropy(row, vocabulary), 1e-6) << rows << " x " << vocabulary << " input " << i;
        EXPECT_TRUE(got.finite);
        const TokenScore& other = ordinary[i][static_cast<size_t>(r)];
        EXPECT_EQ(got.kld, other.kld);
        EXPECT_EQ(got.kld_reverse, other.kld_reverse);
        EXPECT_EQ(got.top1, other.top1);
        EXPECT_EQ(other.entropy, 0.0F);
      }
    }
  }
}

TEST_P(HeadOnEachIsa, EqualLogitsHaveAKlOfExactlyZero) {
  const auto b = backend(GetParam(), 2);
  Head head(*b, 40, 700, 1.5F, 2, 0.0F, true);
  auto inputs = head.inputs();
  b->score(inputs, head.targets);
  for (size_t r = 0; r < 40; ++r) {
    EXPECT_EQ(head.scores[1][r].kld, 0.0);
    EXPECT_EQ(head.scores[1][r].kld_reverse, 0.0F);
    EXPECT_EQ(head.scores[2][r].nll, head.scores[0][r].nll);
  }
}

TEST_P(HeadOnEachIsa, ATokensFiguresDoNotDependOnItsCompany) {
  const auto one = backend(GetParam(), 1);
  const auto two = backend(GetParam(), 2);
  Head head(*one, 300, 600, 1.0F, 1, 0.1F, false);
  Head same(*two, 300, 600, 1.0F, 1, 0.1F, false);
  auto inputs = head.inputs();
  one->score(inputs, head.targets);
  two->score(same.inputs(), same.targets);
  for (size_t i = 0; i < 2; ++i) {
    for (size_t r = 0; r < 300; ++r) {
      EXPECT_EQ(head.scores[i][r].nll, same.scores[i][r].nll);
      EXPECT_EQ(head.scores[i][r].kld, same.scores[i][r].kld);
    }
  }
  for (const int32_t row : {0, 31, 155, 299}) {
    std::vector<TokenScore> a(1);
    std::vector<TokenScore> v(1);
    const std::vector<int32_t> rows{row};
    Operand x;
    x.type = head.hidden[0].type;
    x.values = one->gather(head.hidden[0].values, rows);
    Operand y;
    y.type = head.hidden[1].type;
    y.values = one->gather(head.hidden[1].values, rows);
    // gather makes plain rows: a product wants zeros behind them
    for (Tensor* t : {&x.values, &y.values})
      std::fill(t->row<float>(0) + t->cols(), t->row<float>(0) + t->stride(), 0.0F);
    const std::vector<HeadJob> alone{{.hidden = &x, .weight = head.weight.get(), .scores = a},
                                     {.hidden = &y, .weight = head.weight.get(), .scores = v}};
    one->score(alone, std::span(head.targets).subspan(static_cast<size_t>(row), 1));
    EXPECT_EQ(a[0].nll, head.scores[0][static_cast<size_t>(row)].nll);
    EXPECT_EQ(v[0].nll, head.scores[1][static_cast<size_t>(row)].nll);
    EXPECT_EQ(v[0].kld, head.scores[1][static_cast<size_t>(row)].kld);
  }
}

// Scores of capped and multiplied logits are those of a head whose bias is the capped and multiplied logits.
TEST_P(HeadOnEachIsa, LogitsAreMultipliedAndCapped) {
  const auto b = backend(GetParam(), 2);
  for (const auto& [multiplier, cap] : {std::pair{0.37F, 0.0F}, std::pair{1.0F, 3.0F}, std::pair{0.5F, 30.0F}}) {
    Head head(*b, 3, 700, 2, 2, 0.1F, true);
    std::vector<HeadJob> inputs = head.inputs();
    std::vector<std::vector<float>> plain(2, std::vector<float>(2100));
    for (size_t i = 0; i < 2; ++i) {
      b->logits(inputs[i], plain[i]);
      inputs[i].logit_multiplier = multiplier;
      inputs[i].logit_softcap = cap;
      std::vector<float> got(2100);
      b->logits(inputs[i], got);
      for (size_t j = 0; j < got.size(); ++j) {
        double want = static_cast<double>(plain[i][j]) * static_cast<double>(multiplier);
        if (cap != 0) want = static_cast<double>(cap) * std::tanh(want / static_cast<double>(cap));
        ASSERT_NEAR(got[j], want, std::abs(want) * 1e-6) << plain[i][j];
      }
      plain[i] = got;
    }
    b->score(inputs, head.targets);
    for (size_t r = 0; r < 3; ++r) {
      double sums[2] = {0, 0};
      for (size_t i = 0; i < 2; ++i) {
        for (size_t j = 0; j < 700; ++j) sums[i] += std::exp(static_cast<double>(plain[i][r * 700 + j]));
        const double target = plain[i][r * 700 + static_cast<size_t>(head.targets[r])];
        EXPECT_NEAR(head.scores[i][r].nll, std::log(sums[i]) - target, 1e-5);
      }
      double kld = 0;
      for (size_t j = 0; j < 700; ++j) {
        const double x = plain[0][r * 700 + j];
        kld += std::exp(x) / sums[0] * (x - std::log(sums[0]) - plain[1][r * 700 + j] + std::log(sums[1]));
      }
      EXPECT_NEAR(head.scores[1][r].kld, kld, 1e-5);
    }
  }
}

/// A head whose logits are the bias alone, the same for each row.
std::vector<TokenScore> score_biases(Backend& b, const std::vector<std::vector<float>>& biases, int32_t target,
                                     size_t input, ScoreKind kind = ScoreKind::next_token) {
  const auto vocabulary = static_cast<int64_t>(biases[0].size());
  const auto weight =
      b.prepare(view(std::vector<float>(static_cast<size_t>(vocabulary) * 32), vocabulary), std::nullopt);
  Operand x;
  x.type.storage = DType::f32;
  x.values = b.upload(view(std::vector<float>(64), 2), DType::f32);
  std::vector<Tensor> tensors;
  tensors.reserve(biases.size());
  std::vector<std::vector<TokenScore>> scores(biases.size(), std::vector<TokenScore>(2));
  for (const auto& values : biases) tensors.push_back(b.upload(view(values, 1), DType::f32));
  std::vector<HeadJob> inputs;
  for (size_t i = 0; i < biases.size(); ++i) {
    inputs.push_back({.hidden = &x, .weight = weight.get(), .bias = &tensors[i], .scores = scores[i], .kind = kind});
  }
  b.score(inputs, std::vector<int32_t>{target, target});
  return scores[input];
}

TEST_P(HeadOnEachIsa, TheLowestIdAmongEqualsIsTheTop) {
  const auto b = backend(GetParam(), 1);
  std::vector<float> logits(1000, -1.0F);
  logits[270] = logits[271] = logits[800] = 3.0F;
  EXPECT_EQ(score_biases(*b, {logits}, 0, 0)[1].top1, 270);
  EXPECT_EQ(score_biases(*b, {std::vector<float>(1000, 2.0F)}, 0, 0)[0].top1, 0);
}

TEST_P(HeadOnEachIsa, AConfidentTokenIsExact) {
  const auto b = backend(GetParam(), 1);
  // The maximum rises from chunk to chunk, at last by so much that nothing else counts.
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i) * 0.05F;
  logits[999] = 1e6F;
  const TokenScore s = score_biases(*b, {logits}, 999, 0)[0];
  EXPECT_EQ(s.p, 1.0F);
  EXPECT_EQ(s.top1, 999);
  EXPECT_EQ(s.nll, 0);
  std::vector<float> near = logits;
  near[999] = 60.0F;
  const Wanted want = reference(near.data(), near.data(), 1000, 3);
  EXPECT_NEAR(score_biases(*b, {near}, 3, 0)[0].nll, want.nll, 3e-7);
}

TEST_P(HeadOnEachIsa, EntropyIsExactAtItsEnds) {
  const auto b = backend(GetParam(), 1);
  const auto entropy_of = [&](const std::vector<float>& logits) {
    return score_biases(*b, {logits}, 0, 0, ScoreKind::self)[0].entropy;
  };
  EXPECT_NEAR(entropy_of(std::vector<float>(5000, -3.25F)), std::log(5000.0), 1e-6);
  // The maximum rises from chunk to chunk, a little, then by so much that nothing else counts.
  std::vector<float> rising(5000);
  for (size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<float>(i) * 0.002F;
  EXPECT_NEAR(entropy_of(rising), entropy(rising.data(), 5000), 1e-6);
  rising.back() = 1e6F;
  EXPECT_EQ(entropy_of(rising), 0.0F);
  std::vector<float> falling(rising.rbegin() + 1, rising.rend());
  EXPECT_NEAR(entropy_of(falling), entropy(falling.data(), 4999), 1e-6);
}

TEST_P(HeadOnEachIsa, NonFiniteLogitsAreToldAndHarmNobodyElse) {
  const auto b = backend(GetParam(), 1);
  const std::vector<float> good(600, 0.5F);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const size_t place : {0, 255, 256, 599}) {
      std::vector<float> logits = good;
      logits[place] = bad;
      EXPECT_FALSE(score_biases(*b, {good, logits, good}, 7, 1)[0].finite);
      const TokenScore other = score_biases(*b, {good, logits, good}, 7, 2)[0];
      EXPECT_TRUE(other.finite);
      EXPECT_EQ(other.kld, 0.0);
      EXPECT_NEAR(other.nll, std::log(600.0), 1e-6);
      const TokenScore baseline = score_biases(*b, {logits, good}, 7, 0)[0];
      EXPECT_FALSE(baseline.finite);
      EXPECT_TRUE(score_biases(*b, {logits, good}, 7, 1)[0].finite);
    }
  }
  const std::vector<float> all(600, std::numeric_limits<float>::quiet_NaN());
  const TokenScore none = score_biases(*b, {all}, 7, 0)[0];
  EXPECT_FALSE(none.finite);
  EXPECT_LT(none.top1, 600);
  EXPECT_GE(none.top1, 0);
}

TEST_P(HeadOnEachIsa, ATargetOutsideTheVocabularyIsAnError) {
  const auto b = backend(GetParam(), 1);
  EXPECT_THROW(score_biases(*b, {std::vector<float>(20)}, 20, 0), Error);
  EXPECT_THROW(score_biases(*b, {std::vector<float>(20)}, -1, 0), Error);
}

}  // namespace
}  // namespace mxlm
