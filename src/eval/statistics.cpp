#include "eval/statistics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numbers>

namespace mxlm {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// llama-perplexity's lists, with the extremes.
constexpr double kKldPercentiles[] = {0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100};
constexpr double kDeltaPercentiles[] = {0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100};

/// Neumaier's compensated sum: the error stays at the last bit however many terms there are.
class Sum {
 public:
  void add(double x) {
    const double total = total_ + x;
    rest_ += std::abs(total_) >= std::abs(x) ? (total_ - total) + x : (x - total) + total_;
    total_ = total;
  }
  [[nodiscard]] double value() const { return total_ + rest_; }

 private:
  double total_ = 0, rest_ = 0;
};

using Windows = std::vector<WindowScores>;

/// Calls `body(base, token)` for every token in window order.
template <typename Body>
void for_each_token(const Windows& base, const Windows& variant, Body body) {
  for (size_t w = 0; w < base.size(); ++w) {
    assert(base[w].tokens.size() == variant[w].tokens.size());
    for (size_t t = 0; t < base[w].tokens.size(); ++t) body(base[w].tokens[t], variant[w].tokens[t]);
  }
}

bool usable(const TokenScore& score) { return score.finite && std::isfinite(score.nll) && std::isfinite(score.kld); }

/// Standard error of a mean from the sum of squared deviations: sqrt(population variance / (n - 1)).
double mean_error(double squares, int64_t n) {
  const auto count = static_cast<double>(n);
  return n > 1 ? std::sqrt(squares / count / (count - 1)) : kNan;
}

/// Mean over all tokens and over windows, and the errors of the former.
VariantFigures summarize_one(const Windows& windows, Aggregate aggregate, std::span<const WindowNote> notes) {
  VariantFigures figures;
  Sum nll, weighted_means, total_weight;
  std::vector<double> means;  // of each window that has tokens
  std::vector<double> weights;
  for (size_t w = 0; w < windows.size(); ++w) {
    const auto& tokens = windows[w].tokens;
    Sum sum;
    for (const TokenScore& score : tokens) {
      figures.nonfinite += usable(score) ? 0 : 1;
      sum.add(score.nll);
      nll.add(score.nll);
    }
    if (tokens.empty()) continue;
    const auto count = static_cast<double>(tokens.size());
    means.push_back(sum.value() / count);
    switch (aggregate) {
      case Aggregate::token_mean:
        weights.push_back(count);
        break;
      case Aggregate::window_mean:
        weights.push_back(1);
        break;
      case Aggregate::weighted_windows:
        weights.push_back(notes[w].weight);
        break;
    }
    weighted_means.add(weights.back() * means.back());
    total_weight.add(weights.back());
    figures.tokens += static_cast<int64_t>(tokens.size());
  }
  if (figures.tokens == 0 || figures.nonfinite > 0 || !(total_weight.value() > 0)) {
    figures.nll = figures.ppl = figures.ppl_stderr = figures.ppl_stderr_windows = kNan;
    return figures;
  }
  const double mean = nll.value() / static_cast<double>(figures.tokens);
  figures.nll = aggregate == Aggregate::token_mean ? mean : weighted_means.value() / total_weight.value();
  figures.ppl = std::exp(figures.nll);

  Sum squares, cluster_squares;
  for (const WindowScores& window : windows) {
    for (const TokenScore& score : window.tokens) squares.add((score.nll - mean) * (score.nll - mean));
  }
  figures.ppl_stderr = figures.ppl * mean_error(squares.value(), figures.tokens);
  const double scale = static_cast<double>(means.size()) / total_weight.value();
  for (size_t w = 0; w < means.size(); ++w) {
    const double deviation = scale * weights[w] * (means[w] - figures.nll);
    cluster_squares.add(deviation * deviation);
  }
  figures.ppl_stderr_windows = figures.ppl * mean_error(cluster_squares.value(), static_cast<int64_t>(means.size()));
  return figures;
}

/// Figures a word and a byte. The windows of a page follow one another, and the last one's note counts the page, so
/// windows at the end without one belong to a page that is not finished.
RollingFigures roll(const Windows& windows, std::span<const WindowNote> notes, bool finite) {
  RollingFigures out;
  Sum sum;
  std::vector<double> page, all;
  for (size_t w = 0; w < windows.size(); ++w) {
    for (const TokenScore& score : windows[w].tokens) page.push_back(score.nll);
    if (notes[w].words == 0) continue;
    for (const double nll : page) sum.add(nll);
    all.insert(all.end(), page.begin(), page.end());
    page.clear();
    out.words += notes[w].words;
    out.bytes += notes[w].bytes;
  }
  out.tokens = static_cast<int64_t>(all.size());
  if (!finite || out.words == 0 || out.bytes == 0) {
    out.word_perplexity = out.word_perplexity_stderr = out.byte_perplexity = out.bits_per_byte = kNan;
    return out;
  }
  const auto tokens = static_cast<double>(out.tokens), words = static_cast<double>(out.words);
  const double a_byte = sum.value() / static_cast<double>(out.bytes), mean = sum.value() / tokens;
  Sum squares;
  for (const double nll : all) squares.add((nll - mean) * (nll - mean));
  out.word_perplexity = std::exp(sum.value() / words);
  out.word_perplexity_stderr = out.word_perplexity * mean_error(squares.value(), out.tokens) * tokens / words;
  out.byte_perplexity = std::exp(a_byte);
  out.bits_per_byte = a_byte / std::numbers::ln2;
  return out;
}

SelfFigures self_figures(const Windows& windows, const VariantFigures& figures) {
  if (figures.tokens == 0 || figures.nonfinite > 0) return {.entropy = kNan, .entropy_stderr = kNan};
  SelfFigures out;
  Sum sum, squares;
  for_each_token(windows, windows, [&](const TokenScore& t, const TokenScore&) { sum.add(t.entropy); });
  out.entropy = sum.value() / static_cast<double>(figures.tokens);
  for_each_token(windows, windows, [&](const TokenScore& t, const TokenScore&) {
    const double deviation = static_cast<double>(t.entropy) - out.entropy;
    squares.add(deviation * deviation);
  });
  out.entropy_stderr = mean_error(squares.value(), figures.tokens);
  return out;
}

/// `sorted` at fraction f, linearly interpolated at f (n - 1).
double percentile(const std::vector<double>& sorted, double f) {
  const double place = f * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// The percentiles of `values` keyed by their number; NaN where `values` is empty.
std::map<std::string, double> percentiles(std::vector<double> values, std::span<const double> wanted) {
  std::sort(values.begin(), values.end());
  std::map<std::string, double> out;
  for (const double percent : wanted) {
    out[fmt::format("{}", percent)] = values.empty() ? kNan : percentile(values, percent / 100);
  }
  return out;
}

VsBaseline not_comparable() {
  VsBaseline out;
  out.ppl_ratio = out.ln_ppl_ratio = out.ln_ppl_ratio_stderr = out.correlation = kNan;
  out.kld_mean = out.kld_stderr = out.kld_median = out.kld_max = kNan;
  out.kld_reverse_mean = out.kld_reverse_stderr = kNan;
  out.top1_agreement = out.top1_stderr = kNan;
  out.delta_p_mean = out.delta_p_rms = out.delta_p_rms_stderr = kNan;
  out.kld_percentiles = percentiles({}, kKldPercentiles);
  out.delta_p_percentiles = percentiles({}, kDeltaPercentiles);
  return out;
}

VsBaseline compare(const Windows& base, const VariantFigures& base_figures, const Windows& variant,
                   const VariantFigures& figures) {
  const int64_t tokens = figures.tokens;
  if (tokens == 0 || base_figures.nonfinite > 0 || figures.nonfinite > 0) return not_comparable();
  const auto n = static_cast<double>(tokens);
  VsBaseline out;
  out.ln_ppl_ratio = figures.nll - base_figures.nll;
  out.ppl_ratio = std::exp(out.ln_ppl_ratio);

  Sum base_nll, nll, kld, reverse, jensen_shannon, delta, delta2, delta4;
  int64_t same = 0;
  std::vector<double> klds, deltas;
  klds.reserve(static_cast<size_t>(tokens));
  deltas.reserve(static_cast<size_t>(tokens));
  for_each_token(base, variant, [&](const TokenScore& b, const TokenScore& q) {
    const double d = static_cast<double>(q.p) - static_cast<double>(b.p);
    base_nll.add(b.nll);
    nll.add(q.nll);
    kld.add(q.kld);
    reverse.add(static_cast<double>(q.kld_reverse));
    jensen_shannon.add(static_cast<double>(q.jensen_shannon));
    delta.add(d);
    delta2.add(d * d);
    delta4.add(d * d * d * d);
    same += b.top1 == q.top1 ? 1 : 0;
    klds.push_back(q.kld);
    deltas.push_back(d);
  });
  const double base_mean = base_nll.value() / n, mean = nll.value() / n;
  out.kld_mean = kld.value() / n;
  out.kld_reverse_mean = reverse.value() / n;
  const double jensen_shannon_mean = jensen_shannon.value() / n;

  // Deviations from the means instead of mean(x^2) - mean(x)^2, and the variance of the difference instead of
  // s_q^2 + s_b^2 - 2 cov: the same figures, but nothing cancels where variant and baseline nearly agree.
  Sum base_squares, squares, products, difference_squares, kld_squares, reverse_squares, jensen_shannon_squares;
  for_each_token(base, variant, [&](const TokenScore& b, const TokenScore& q) {
    const double x = b.nll - base_mean, y = q.nll - mean;
    base_squares.add(x * x);
    squares.add(y * y);
    products.add(x * y);
    difference_squares.add((y - x) * (y - x));
    kld_squares.add((q.kld - out.kld_mean) * (q.kld - out.kld_mean));
    const double z = static_cast<double>(q.kld_reverse) - out.kld_reverse_mean;
    reverse_squares.add(z * z);
    const double j = static_cast<double>(q.jensen_shannon) - jensen_shannon_mean;
    jensen_shannon_squares.add(j * j);
  });
  out.ln_ppl_ratio_stderr = mean_error(difference_squares.value(), tokens);
  const double scale = std::sqrt(base_squares.value()) * std::sqrt(squares.value());
  out.correlation = tokens > 1 && scale > 0 ? products.value() / scale : kNan;
  out.kld_stderr = mean_error(kld_squares.value(), tokens);
  out.kld_reverse_stderr = mean_error(reverse_squares.value(), tokens);
  if (!std::isnan(jensen_shannon_mean)) {
    out.jensen_shannon_mean = jensen_shannon_mean;
    out.jensen_shannon_stderr = mean_error(jensen_shannon_squares.value(), tokens);
  }
  out.kld_percentiles = percentiles(std::move(klds), kKldPercentiles);
  out.kld_median = out.kld_percentiles.at("50");
  out.kld_max = out.kld_percentiles.at("100");

  out.top1_agreement = static_cast<double>(same) / n;
  out.top1_stderr = tokens > 1 ? std::sqrt(out.top1_agreement * (1 - out.top1_agreement) / (n - 1)) : kNan;

  const double mean2 = delta2.value() / n;
  out.delta_p_mean = delta.value() / n;
  out.delta_p_rms = std::sqrt(mean2);
  const double spread = std::max(0.0, delta4.value() / n - mean2 * mean2);  // a rounding below zero is zero
  if (tokens < 2) {
    out.delta_p_rms_stderr = kNan;
  } else {
    out.delta_p_rms_stderr = mean2 > 0 ? 0.5 / out.delta_p_rms * std::sqrt(spread / (n - 1)) : 0;
  }
  out.delta_p_percentiles = percentiles(std::move(deltas), kDeltaPercentiles);
  return out;
}

}  // namespace

std::vector<VariantFigures> summarize(std::span<const Windows> variants, Aggregate aggregate,
                                      std::span<const WindowNote> notes, ScoreKind kind) {
  std::vector<VariantFigures> out;
  out.reserve(variants.size());
  const bool pages = std::any_of(notes.begin(), notes.end(), [](const WindowNote& note) { return note.bytes > 0; });
  for (size_t v = 0; v < variants.size(); ++v) {
    assert(variants[v].size() == variants[0].size());
    assert(notes.empty() ? aggregate != Aggregate::weighted_windows : notes.size() >= variants[v].size());
    out.push_back(summarize_one(variants[v], aggregate, notes));
    if (pages) out[v].rolling = roll(variants[v], notes, out[v].nonfinite == 0);
    if (kind == ScoreKind::self) out[v].self = self_figures(variants[v], out[v]);
    if (v > 0) out[v].vs_baseline = compare(variants[0], out[0], variants[v], out[v]);
  }
  return out;
}

std::vector<PairFigures> compare_pairs(std::span<const Windows> variants, std::span<const VariantFigures> figures) {
  std::vector<PairFigures> out;
  for (size_t a = 1; a < variants.size(); ++a) {
    for (size_t b = a + 1; b < variants.size(); ++b) {
      PairFigures pair{.a = a, .b = b};
      const int64_t tokens = figures[a].tokens;
      if (tokens == 0 || figures[a].nonfinite > 0 || figures[b].nonfinite > 0) {
        pair.ln_ppl_ratio = pair.ln_ppl_ratio_stderr = pair.kld_difference = pair.kld_difference_stderr = kNan;
        out.push_back(pair);
        continue;
      }
      const auto n = static_cast<double>(tokens);
      Sum nll, kld, nll_squares, kld_squares;
      for_each_token(variants[a], variants[b], [&](const TokenScore& x, const TokenScore& y) {
        nll.add(y.nll - x.nll);
        kld.add(y.kld - x.kld);
      });
      const double nll_mean = nll.value() / n;
      pair.ln_ppl_ratio = figures[b].nll - figures[a].nll;
      pair.kld_difference = kld.value() / n;
      for_each_token(variants[a], variants[b], [&](const TokenScore& x, const TokenScore& y) {
        const double d = y.nll - x.nll - nll_mean, e = y.kld - x.kld - pair.kld_difference;
        nll_squares.add(d * d);
        kld_squares.add(e * e);
      });
      pair.ln_ppl_ratio_stderr = mean_error(nll_squares.value(), tokens);
      pair.kld_difference_stderr = mean_error(kld_squares.value(), tokens);
      out.push_back(pair);
    }
  }
  return out;
}

}  // namespace mxlm
