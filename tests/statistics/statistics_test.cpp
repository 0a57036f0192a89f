#include "statistics/statistics.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "statistics/clusters.hpp"
#include "statistics/noise.hpp"
#include "statistics/student_t.hpp"

namespace mxlm {
namespace {

using nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// The golden figures are doubles computed another way: equal to a few units in the last place of the terms summed.
void expect_figure(const json& want, double got, const std::string& what, double tolerance = 1e-13) {
  if (want.is_null()) {
    EXPECT_TRUE(std::isnan(got)) << what << " is " << got;
  } else {
    EXPECT_NEAR(got, want.get<double>(), tolerance * std::max(1.0, std::abs(want.get<double>()))) << what;
  }
}

void expect_percentiles(const json& want, const std::map<std::string, double>& got, const std::string& what) {
  ASSERT_EQ(want.size(), got.size()) << what;
  for (const auto& [key, value] : got) expect_figure(want.at(key), value, fmt::format("{} {}", what, key));
}

TEST(Statistics, AveragesTheOtherDivergences) {
  std::vector<std::vector<WindowScores>> scores(2, std::vector<WindowScores>(1));
  for (const float x : {1.0F, 2.0F, 6.0F}) {
    scores[0][0].tokens.push_back({.nll = 1, .p = 0.25F});
    scores[1][0].tokens.push_back({.nll = 1, .p = 0.25F, .kld_reverse = x, .jensen_shannon = x / 2});
  }
  const VsBaseline measured = summarize(scores, {})[1].vs_baseline.value();
  EXPECT_DOUBLE_EQ(measured.kld_reverse_mean, 3);
  EXPECT_DOUBLE_EQ(measured.kld_reverse_stderr, std::sqrt(14.0 / 3 / 2));
  EXPECT_DOUBLE_EQ(measured.jensen_shannon_mean.value_or(0), 1.5);
  EXPECT_DOUBLE_EQ(measured.jensen_shannon_stderr.value_or(0), std::sqrt(14.0 / 3 / 2) / 2);

  for (auto& token : scores[1][0].tokens) token.jensen_shannon = kNan;
  EXPECT_FALSE(summarize(scores, {})[1].vs_baseline.value().jensen_shannon_mean);
}

TEST(Statistics, FiguresEqualNumpy) {
  std::ifstream file(std::string(MXLM_TEST_DATA) + "/eval/statistics.json");
  const json golden = json::parse(file);
  ASSERT_GE(golden["cases"].size(), 9);
  for (const json& test : golden["cases"]) {
    SCOPED_TRACE(test["name"].get<std::string>());
    std::vector<std::vector<WindowScores>> scores;
    for (const json& variant : test["scores"]) {
      scores.emplace_back();
      for (const json& window : variant) {
        WindowScores w;
        for (size_t t = 0; t < window["nll"].size(); ++t) {
          w.tokens.push_back(
              {.nll = window["nll"][t], .kld = window["kld"][t], .p = window["p"][t], .top1 = window["top1"][t]});
        }
        scores.back().push_back(std::move(w));
      }
    }
    const bool by_window = test["aggregate"] == "window_mean";
    const auto clusters = test["clusters"].get<std::vector<size_t>>();
    const Sample sample{.aggregate = by_window ? Aggregate::window_mean : Aggregate::token_mean, .clusters = clusters};
    const auto figures = summarize(scores, sample);
    ASSERT_EQ(figures.size(), test["figures"].size());
    const auto pairs = compare_pairs(scores, figures, sample, all_pairs(scores.size()));
    ASSERT_EQ(pairs.size(), test["pairs"].size());
    for (size_t i = 0; i < pairs.size(); ++i) {
      const json& want = test["pairs"][i];
      EXPECT_EQ(pairs[i].a, want["a"].get<size_t>());
      EXPECT_EQ(pairs[i].b, want["b"].get<size_t>());
      expect_figure(want["ln_ppl_ratio"], pairs[i].ln_ppl_ratio, "ln_ppl_ratio");
      expect_figure(want["ln_ppl_ratio_stderr"], pairs[i].ln_ppl_ratio_stderr, "ln_ppl_ratio_stderr");
      expect_figure(want["kld_difference"], pairs[i].kld_difference, "kld_difference");
      expect_figure(want["kld_difference_stderr"], pairs[i].kld_difference_stderr, "kld_difference_stderr");
      expect_figure(want["ln_ppl_ratio_stderr_windows"], pairs[i].ln_ppl_ratio_stderr_windows, "ratio by cluster");
      expect_figure(want["kld_difference_stderr_windows"], pairs[i].kld_difference_stderr_windows, "kld by cluster");
    }
    for (size_t v = 0; v < figures.size(); ++v) {
      const json& want = test["figures"][v];
      const VariantFigures& got = figures[v];
      EXPECT_EQ(got.tokens, want["tokens"].get<int64_t>());
      EXPECT_EQ(got.nonfinite, 0);
      expect_figure(want["nll"], got.nll, "nll");
      expect_figure(want["ppl"], got.ppl, "ppl");
      expect_figure(want["ppl_stderr"], got.ppl_stderr, "ppl_stderr");
      expect_figure(want["nll_stderr_windows"], got.nll_stderr_windows, "nll_stderr_windows");
      expect_figure(want["ppl_stderr_windows"], got.ppl_stderr_windows, "ppl_stderr_windows");
      ASSERT_EQ(got.vs_baseline.has_value(), want.contains("vs_baseline"));
      if (!got.vs_baseline) continue;
      const json& vs = want["vs_baseline"];
      const VsBaseline b = got.vs_baseline.value_or(VsBaseline{});
      expect_figure(vs["ppl_ratio"], b.ppl_ratio, "ppl_ratio");
      expect_figure(vs["ln_ppl_ratio"], b.ln_ppl_ratio, "ln_ppl_ratio");
      // The golden one subtracts variances (in extended precision), so where they nearly cancel it has fewer digits.
      expect_figure(vs["ln_ppl_ratio_stderr"], b.ln_ppl_ratio_stderr, "ln_ppl_ratio_stderr", 1e-11);
      expect_figure(vs["correlation"], b.correlation, "correlation");
      expect_figure(vs["kld_mean"], b.kld_mean, "kld_mean");
      expect_figure(vs["kld_stderr"], b.kld_stderr, "kld_stderr");
      expect_figure(vs["kld_median"], b.kld_median, "kld_median");
      expect_figure(vs["kld_max"], b.kld_max, "kld_max");
      expect_percentiles(vs["kld_percentiles"], b.kld_percentiles, "kld");
      expect_figure(vs["top1_agreement"], b.top1_agreement, "top1_agreement");
      expect_figure(vs["top1_stderr"], b.top1_stderr, "top1_stderr");
      expect_figure(vs["ln_ppl_ratio_stderr_windows"], b.ln_ppl_ratio_stderr_windows, "ln_ppl_ratio_stderr_windows");
      expect_figure(vs["kld_stderr_windows"], b.kld_stderr_windows, "kld_stderr_windows");
      expect_figure(vs["top1_stderr_windows"], b.top1_stderr_windows, "top1_stderr_windows");
      const json& interval = vs["top1_interval"];
      expect_figure(interval.is_null() ? interval : interval[0], b.top1_low, "top1_low", 1e-12);
      expect_figure(interval.is_null() ? interval : interval[1], b.top1_high, "top1_high", 1e-12);
      expect_figure(vs["delta_p_mean_stderr_windows"], b.delta_p_mean_stderr_windows, "delta_p_mean_stderr_windows");
      expect_figure(vs["delta_p_rms_stderr_windows"], b.delta_p_rms_stderr_windows, "delta_p_rms_stderr_windows");
      expect_figure(vs["delta_p_mean"], b.delta_p_mean, "delta_p_mean");
      expect_figure(vs["delta_p_rms"], b.delta_p_rms, "delta_p_rms");
      expect_figure(vs["delta_p_rms_stderr"], b.delta_p_rms_stderr, "delta_p_rms_stderr");
      expect_percentiles(vs["delta_p_percentiles"], b.delta_p_percentiles, "delta_p");
    }
  }
}

TEST(StudentT, EqualsScipy) {
  std::ifstream file(std::string(MXLM_TEST_DATA) + "/eval/statistics.json");
  const json golden = json::parse(file);
  ASSERT_GE(golden["student_t"].size(), 60);
  for (const json& entry : golden["student_t"]) {
    const double size = entry[0], degrees = entry[1], want = entry[2];
    EXPECT_NEAR(student_p(size, degrees), want, 1e-9 * want) << size << " with " << degrees;
  }
  EXPECT_EQ(student_p(std::numeric_limits<double>::infinity(), 3), 0);
  EXPECT_NEAR(student_p(3, 1e15), normal_p(3), 1e-12);
  EXPECT_TRUE(std::isnan(student_p(2, 0)));
  EXPECT_TRUE(std::isnan(student_p(kNan, 3)));
  EXPECT_NEAR(normal_p(2), 0.0455002638963584, 1e-15);
  EXPECT_NEAR(normal_p(3), 0.0026997960632602, 1e-15);
}

/// A window of so many tokens of which all but the first are scored.
Window cut(size_t tokens, int32_t document, int64_t left_out = 0, int64_t words = 0) {
  Window out;
  out.tokens.assign(tokens, 1);
  out.document = document;
  out.tokens_left_out = left_out;
  out.note.words = words;
  return out;
}

TEST(Clusters, AreDocumentsPagesOrStretchesOf512Tokens) {
  const auto clusters = [](const std::vector<Window>& windows, ClusterUnit unit) {
    std::vector<const Window*> pointers;
    pointers.reserve(windows.size());
    for (const Window& w : windows) pointers.push_back(&w);
    return make_clusters(pointers, unit);
  };
  using Of = std::vector<size_t>;
  // Whole windows, the short tail with the last of them.
  const Clusters whole = clusters({cut(512, 0), cut(512, 0), cut(512, 0), cut(30, 0)}, ClusterUnit::stretch);
  EXPECT_EQ(whole.of, (Of{0, 1, 2, 2}));
  EXPECT_EQ(whole.number, 3);
  EXPECT_EQ(whole.kind, "window group");
  EXPECT_EQ(clusters({cut(512, 0), cut(600, 0)}, ClusterUnit::stretch).kind, "window");
  // Short ones in groups, unless text is left out between them.
  EXPECT_EQ(clusters({cut(200, 0), cut(200, 0), cut(200, 0), cut(512, 0)}, ClusterUnit::stretch).of, (Of{0, 0, 0, 1}));
  EXPECT_EQ(clusters({cut(200, 0), cut(200, 0, 312), cut(200, 0, 400)}, ClusterUnit::stretch).of, (Of{0, 1, 2}));
  EXPECT_EQ(clusters({cut(8, 0), cut(8, 0)}, ClusterUnit::stretch).number, 1);
  EXPECT_EQ(clusters({}, ClusterUnit::stretch).number, 0);
  // Of llamacpp half a window is scored.
  Window half = cut(512, 0);
  half.score_begin = 257;
  EXPECT_EQ(clusters({half, half, half, half}, ClusterUnit::stretch).of, (Of{0, 0, 1, 1}));

  EXPECT_EQ(clusters({cut(9, 3), cut(9, 3), cut(9, 5)}, ClusterUnit::document).of, (Of{0, 0, 1}));
  const Clusters pages = clusters({cut(9, 0), cut(9, 0, 0, 12), cut(9, 0, 0, 4), cut(9, 0)}, ClusterUnit::page);
  EXPECT_EQ(pages.of, (Of{0, 0, 1, 2}));
  EXPECT_EQ(pages.kind, "page");
}

TEST(Statistics, AccuracyAndFlipsByHand) {
  Window text = cut(5, 0);
  text.tokens = {9, 1, 2, 3, 4};
  const std::vector<const Window*> windows{&text, &text};
  const auto guesses = [](std::initializer_list<int32_t> tokens) {
    WindowScores out;
    for (const int32_t token : tokens) out.tokens.push_back({.nll = 1, .top1 = token});
    return out;
  };
  // Right: 2 and 3 of 4 before, 2 and 1 after; one is lost in the first window and one won, two are lost in the second.
  const std::vector<std::vector<WindowScores>> scores{{guesses({1, 2, 0, 0}), guesses({1, 2, 3, 0})},
                                                      {guesses({1, 0, 3, 0}), guesses({1, 0, 0, 0})}};
  const auto figures = summarize(scores, {.windows = windows});
  EXPECT_DOUBLE_EQ(figures[0].accuracy, 5.0 / 8);
  EXPECT_DOUBLE_EQ(figures[1].accuracy, 3.0 / 8);
  EXPECT_DOUBLE_EQ(figures[1].accuracy_stderr_windows, std::sqrt(2 * (0.25 + 0.25)) / 8);
  ASSERT_TRUE(figures[1].vs_baseline && figures[1].vs_baseline->flips);
  const Flips flips = figures[1].vs_baseline.value_or(VsBaseline{}).flips.value_or(Flips{});
  EXPECT_DOUBLE_EQ(flips.right_to_wrong, 3.0 / 8);
  EXPECT_DOUBLE_EQ(flips.right_to_wrong_stderr_windows, std::sqrt(2 * (0.25 + 0.25)) / 8);
  EXPECT_DOUBLE_EQ(flips.wrong_to_right, 1.0 / 8);
  EXPECT_DOUBLE_EQ(flips.accuracy_difference, -2.0 / 8);
  EXPECT_DOUBLE_EQ(flips.accuracy_difference_stderr_windows, std::sqrt(2.0 * (1 + 1)) / 8);
  EXPECT_TRUE(std::isnan(summarize(scores, {})[0].accuracy));
}

TEST(Noise, IsTheDeviationOfTheDifferencesByHand) {
  // NLL of the baseline moves by 1, -1; that of the variant by 3, 1, so the ratio by 2, 2.
  std::vector<std::vector<WindowScores>> scores(2), reversed(2);
  const auto add = [](std::vector<WindowScores>& to, std::initializer_list<double> nlls,
                      std::initializer_list<int> top1) {
    WindowScores w;
    for (const double nll : nlls) w.tokens.push_back({.nll = nll, .kld = nll / 8});
    for (size_t t = 0; t < w.tokens.size(); ++t) w.tokens[t].top1 = *(top1.begin() + t);
    to.push_back(w);
  };
  add(scores[0], {1, 2}, {1, 1});
  add(reversed[0], {2, 1}, {1, 2});
  add(scores[1], {1, 2}, {1, 1});
  add(reversed[1], {4, 3}, {1, 1});
  const auto noise = measure_noise(scores, reversed, {});
  EXPECT_DOUBLE_EQ(noise[0].nll_sd, std::sqrt(2.0) / 2);  // sd sqrt(2), over sqrt(2 x 2)
  EXPECT_DOUBLE_EQ(noise[1].nll_sd, std::sqrt(2.0) / 2);
  EXPECT_DOUBLE_EQ(noise[1].ln_ppl_ratio_sd, 0);
  EXPECT_DOUBLE_EQ(noise[1].kld_sd, std::sqrt(2.0) / 16);
  EXPECT_DOUBLE_EQ(noise[1].top1_sd, std::sqrt(0.5) / 2);  // 0, -1
  EXPECT_DOUBLE_EQ(noise[1].floor_flips, 0.5);
  EXPECT_TRUE(std::isnan(noise[0].kld_sd));
  EXPECT_TRUE(std::isnan(noise[0].floor_kld));
}

WindowScores window(std::initializer_list<double> nlls) {
  WindowScores out;
  for (const double nll : nlls) out.tokens.push_back({.nll = nll, .kld = 0.5, .p = 0.25F, .top1 = 3});
  return out;
}

TEST(Statistics, ByHand) {
  // NLLs 1 2 3 | 6: mean 3, squared deviations 4 1 0 9 = 14; window sums deviate by -3 and 3.
  const std::vector<std::vector<WindowScores>> scores{{window({1, 2, 3}), window({6})}};
  const VariantFigures by_token = summarize(scores, {})[0];
  EXPECT_DOUBLE_EQ(by_token.nll, 3);
  EXPECT_DOUBLE_EQ(by_token.ppl_stderr, std::exp(3.0) * std::sqrt(14.0 / 4 / 3));
  EXPECT_DOUBLE_EQ(by_token.ppl_stderr_windows, std::exp(3.0) * std::sqrt(2.0 * (9 + 9)) / 4);
  // Window means 2 and 6.
  const VariantFigures by_window = summarize(scores, {.aggregate = Aggregate::window_mean})[0];
  EXPECT_DOUBLE_EQ(by_window.nll, 4);
  EXPECT_DOUBLE_EQ(by_window.ppl_stderr_windows, std::exp(4.0) * 2);
}

TEST(Statistics, WeightedWindowsByHand) {
  // Window means 2, 6 and 5, weighted 3, 1 and 0: mean 3; weighted deviations -3 and 3, of 3 windows and weight 4.
  const std::vector<std::vector<WindowScores>> scores{{window({1, 2, 3}), window({6}), window({5})}};
  const std::vector<WindowNote> notes{{.weight = 3}, {.weight = 1}, {.weight = 0}};
  const VariantFigures figures = summarize(scores, {.aggregate = Aggregate::weighted_windows, .notes = notes})[0];
  EXPECT_DOUBLE_EQ(figures.nll, 3);
  EXPECT_DOUBLE_EQ(figures.ppl_stderr_windows, std::exp(3.0) * std::sqrt(3.0 / 2 * (9 + 9)) / 4);
  EXPECT_EQ(figures.tokens, 5);
  EXPECT_FALSE(figures.rolling.has_value());
}

TEST(Statistics, FiguresOfWordsAndBytesAreOfWholePages) {
  // Two pages of 3 + 1 and 1 tokens; the third is not finished. NLL 1 2 3 6 | 8: sum 20, mean 4, squared deviations
  // 9 4 1 4 16 = 34.
  const std::vector<std::vector<WindowScores>> scores{{window({1, 2, 3}), window({6}), window({8}), window({70})}};
  const std::vector<WindowNote> notes{
      {}, {.weight = 0, .words = 6, .bytes = 30}, {.weight = 0, .words = 4, .bytes = 10}, {}};
  const VariantFigures figures = summarize(scores, {.aggregate = Aggregate::token_mean, .notes = notes})[0];
  EXPECT_DOUBLE_EQ(figures.nll, 15);
  ASSERT_TRUE(figures.rolling.has_value());
  const RollingFigures rolling = figures.rolling.value_or(RollingFigures{});
  EXPECT_EQ(rolling.words, 10);
  EXPECT_EQ(rolling.bytes, 40);
  EXPECT_EQ(rolling.tokens, 5);
  EXPECT_DOUBLE_EQ(rolling.word_perplexity, std::exp(2.0));
  EXPECT_DOUBLE_EQ(rolling.word_perplexity_stderr, std::exp(2.0) * std::sqrt(34.0 / 5 / 4) * 5 / 10);
  EXPECT_DOUBLE_EQ(rolling.byte_perplexity, std::exp(0.5));
  EXPECT_DOUBLE_EQ(rolling.bits_per_byte, 0.5 / std::log(2.0));

  // A run that ended inside the first page has no such figures.
  const std::vector<std::vector<WindowScores>> begun{{window({1, 2, 3})}};
  const auto none = summarize(begun, {.aggregate = Aggregate::token_mean, .notes = notes})[0].rolling;
  EXPECT_TRUE(std::isnan(none.value_or(RollingFigures{}).word_perplexity));
}

TEST(Statistics, EntropyByHand) {
  std::vector<std::vector<WindowScores>> scores{{window({1, 2}), window({3})}};
  scores[0][0].tokens[0].entropy = 1;
  scores[0][0].tokens[1].entropy = 2;
  scores[0][1].tokens[0].entropy = 6;  // mean 3, squared deviations 4 1 9
  const auto self = summarize(scores, {.kind = ScoreKind::self})[0].self;
  ASSERT_TRUE(self.has_value());
  EXPECT_DOUBLE_EQ(self.value_or(SelfFigures{}).entropy, 3);
  EXPECT_DOUBLE_EQ(self.value_or(SelfFigures{}).entropy_stderr, std::sqrt(14.0 / 3 / 2));
  EXPECT_FALSE(summarize(scores, {})[0].self.has_value());
}

TEST(Statistics, SumsDoNotLoseSmallTerms) {
  WindowScores many;
  many.tokens.assign(1 << 20, {.nll = 0.1});
  many.tokens.front().nll = 1e9;
  const std::vector<std::vector<WindowScores>> scores{{many}};
  const double want = (1e9 + 0.1 * ((1 << 20) - 1)) / (1 << 20);
  EXPECT_DOUBLE_EQ(summarize(scores, {})[0].nll, want);
}

TEST(Statistics, NonFiniteTokensAreCountedAndNeverLeftOut) {
  std::vector<std::vector<WindowScores>> scores(3, {window({1, 2}), window({3, 4})});
  scores[1][1].tokens[0].finite = false;
  scores[2][0].tokens[1].nll = std::numeric_limits<double>::infinity();
  scores[2][1].tokens[1].kld = kNan;
  const auto figures = summarize(scores, {});
  EXPECT_EQ(figures[0].nonfinite, 0);
  EXPECT_DOUBLE_EQ(figures[0].nll, 2.5);
  EXPECT_EQ(figures[1].nonfinite, 1);
  EXPECT_EQ(figures[2].nonfinite, 2);
  for (const size_t v : {1, 2}) {
    EXPECT_EQ(figures[v].tokens, 4);
    EXPECT_TRUE(std::isnan(figures[v].nll));
    EXPECT_TRUE(std::isnan(figures[v].ppl));
    EXPECT_TRUE(std::isnan(figures[v].ppl_stderr));
    EXPECT_TRUE(std::isnan(figures[v].ppl_stderr_windows));
    const VsBaseline b = figures[v].vs_baseline.value_or(VsBaseline{});
    EXPECT_TRUE(std::isnan(b.ln_ppl_ratio));
    EXPECT_TRUE(std::isnan(b.kld_mean));
    EXPECT_TRUE(std::isnan(b.kld_percentiles.at("99.9")));
    EXPECT_TRUE(std::isnan(b.top1_agreement));
  }
  const auto pairs = compare_pairs(scores, figures, {}, all_pairs(scores.size()));
  ASSERT_EQ(pairs.size(), 1);
  EXPECT_TRUE(std::isnan(pairs[0].ln_ppl_ratio));
  EXPECT_TRUE(std::isnan(pairs[0].kld_difference_stderr));
  // A baseline that is not finite leaves nothing to compare with.
  scores[0][0].tokens[0].finite = false;
  scores.resize(1);
  scores.push_back({window({1, 2}), window({3, 4})});
  const auto no_baseline = summarize(scores, {});
  EXPECT_DOUBLE_EQ(no_baseline[1].nll, 2.5);
  EXPECT_TRUE(std::isnan(no_baseline[1].vs_baseline.value_or(VsBaseline{}).ppl_ratio));
}

TEST(Statistics, NothingScored) {
  const std::vector<std::vector<WindowScores>> scores(2);
  const auto figures = summarize(scores, {});
  ASSERT_EQ(figures.size(), 2);
  EXPECT_EQ(figures[0].tokens, 0);
  EXPECT_TRUE(std::isnan(figures[0].nll));
  EXPECT_TRUE(std::isnan(figures[1].vs_baseline.value_or(VsBaseline{}).kld_mean));
  EXPECT_TRUE(summarize({}, {}).empty());
}

}  // namespace
}  // namespace mxlm
