#include "statistics/statistics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numbers>

#include "statistics/cluster_sums.hpp"

namespace mxlm {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The percentiles that llama-perplexity prints, with the extremes.
constexpr double kKldPercentiles[] = {0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100};
constexpr double kDeltaPercentiles[] = {0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100};

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

/// The standard error of a mean, sqrt(population variance / (n - 1)), from the sum of squared deviations.
double mean_error(double squares, int64_t n) {
  const auto count = static_cast<double>(n);
  return n > 1 ? std::sqrt(squares / count / (count - 1)) : kNan;
}

size_t cluster_of(const Sample& sample, size_t window) {
  return sample.clusters.empty() ? window : sample.clusters[window];
}

ClusterSums cluster_sums(const Sample& sample, size_t windows) {
  return ClusterSums(windows == 0 ? 0 : cluster_of(sample, windows - 1) + 1);
}

/// The weight of a window's mean in the mean NLL.
double weight_of(const Sample& sample, size_t window, size_t tokens) {
  switch (sample.aggregate) {
    case Aggregate::token_mean:
      return static_cast<double>(tokens);
    case Aggregate::window_mean:
      return 1;
    case Aggregate::weighted_windows:
      return sample.notes[window].weight;
  }
  return 0;
}

/// clustered() returns the error by cluster of a mean of `value(window, token)`. All tokens have the same weight, or
/// the weights are those of NLL.
enum class Weighting : uint8_t { tokens, aggregate };
template <typename Value>
double clustered(const Sample& sample, const Windows& windows, Weighting weighting, double mean, Value value) {
  ClusterSums sums = cluster_sums(sample, windows.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    const size_t tokens = windows[w].tokens.size();
    if (tokens == 0) continue;
    Sum sum;
    for (size_t t = 0; t < tokens; ++t) sum.add(value(w, t));
    const auto count = static_cast<double>(tokens);
    if (weighting == Weighting::tokens || sample.aggregate == Aggregate::token_mean) {
      sums.add(cluster_of(sample, w), sum.value(), count);
    } else {
      const double weight = weight_of(sample, w, tokens);
      sums.add(cluster_of(sample, w), weight * (sum.value() / count), weight);
    }
  }
  return sums.error(mean);
}

int64_t used_clusters(const Sample& sample, const Windows& windows) {
  int64_t out = 0;
  for (size_t w = 0, last = SIZE_MAX; w < windows.size(); ++w) {
    if (windows[w].tokens.empty() || cluster_of(sample, w) == last) continue;
    last = cluster_of(sample, w);
    ++out;
  }
  return out;
}

/// True if the most likely token of a score is the token of the text.
bool is_right(const Sample& sample, const Windows& windows, size_t w, size_t t) {
  const Window& window = *sample.windows[w];
  return windows[w].tokens[t].top1 == window.target(static_cast<size_t>(window.score_begin) + t);
}

bool targets_known(const Sample& sample) {
  // The protocol `self` has no targets.
  return !sample.windows.empty() && sample.kind == ScoreKind::next_token;
}

void add_accuracy(const Sample& sample, const Windows& windows, VariantFigures& figures) {
  figures.accuracy = figures.accuracy_stderr_windows = kNan;
  if (!targets_known(sample) || figures.tokens == 0 || figures.nonfinite > 0) return;
  const auto right = [&](size_t w, size_t t) { return is_right(sample, windows, w, t) ? 1.0 : 0.0; };
  double sum = 0;
  for (size_t w = 0; w < windows.size(); ++w) {
    for (size_t t = 0; t < windows[w].tokens.size(); ++t) sum += right(w, t);
  }
  figures.accuracy = sum / static_cast<double>(figures.tokens);
  figures.accuracy_stderr_windows = clustered(sample, windows, Weighting::tokens, figures.accuracy, right);
}

/// Figures of one variant that need no comparison: mean NLL, perplexity, and their errors.
VariantFigures summarize_one(const Windows& windows, const Sample& sample) {
  VariantFigures figures;
  Sum nll, weighted_means, total_weight;
  for (size_t w = 0; w < windows.size(); ++w) {
    const auto& tokens = windows[w].tokens;
    Sum sum;
    for (const TokenScore& score : tokens) {
      figures.nonfinite += usable(score) ? 0 : 1;
      sum.add(score.nll);
      nll.add(score.nll);
    }
    if (tokens.empty()) continue;
    const double weight = weight_of(sample, w, tokens.size());
    weighted_means.add(weight * (sum.value() / static_cast<double>(tokens.size())));
    total_weight.add(weight);
    figures.tokens += static_cast<int64_t>(tokens.size());
  }
  figures.clusters = used_clusters(sample, windows);
  if (figures.tokens == 0 || figures.nonfinite > 0 || !(total_weight.value() > 0)) {
    figures.nll = figures.ppl = figures.ppl_stderr = figures.nll_stderr_windows = figures.ppl_stderr_windows = kNan;
    return figures;
  }
  const double mean = nll.value() / static_cast<double>(figures.tokens);
  figures.nll = sample.aggregate == Aggregate::token_mean ? mean : weighted_means.value() / total_weight.value();
  figures.ppl = std::exp(figures.nll);

  Sum squares;
  for (const WindowScores& window : windows) {
    for (const TokenScore& score : window.tokens) squares.add((score.nll - mean) * (score.nll - mean));
  }
  figures.ppl_stderr = figures.ppl * mean_error(squares.value(), figures.tokens);
  figures.nll_stderr_windows = clustered(sample, windows, Weighting::aggregate, figures.nll,
                                         [&](size_t w, size_t t) { return windows[w].tokens[t].nll; });
  figures.ppl_stderr_windows = figures.ppl * figures.nll_stderr_windows;
  return figures;
}

/// Calls `body(first, end, words, bytes)` for the windows of each page. The windows of a page follow one another, and
/// the note of its last window counts the words and bytes. So last windows without such a note belong to an unfinished
/// page.
template <typename Body>
void for_each_page(size_t windows, const Sample& sample, Body body) {
  for (size_t first = 0, w = 0; w < windows; ++w) {
    if (sample.notes[w].words == 0) continue;
    body(first, w + 1, sample.notes[w].words, sample.notes[w].bytes);
    first = w + 1;
  }
}

/// The NLL of a window, minus the NLL of `base` unless `base` is null.
double nll_of(const WindowScores& window, const WindowScores* base) {
  Sum sum;
  for (size_t t = 0; t < window.tokens.size(); ++t) {
    sum.add(window.tokens[t].nll - (base == nullptr ? 0 : base->tokens[t].nll));
  }
  return sum.value();
}

/// The error by cluster of the NLL for each word or byte, as `count` chooses. With `base`, of the difference from the
/// NLL of `base`.
template <typename Count>
double page_error(const Windows& windows, const Windows* base, const Sample& sample, double ratio, Count count) {
  ClusterSums sums = cluster_sums(sample, windows.size());
  for_each_page(windows.size(), sample, [&](size_t first, size_t end, int64_t words, int64_t bytes) {
    size_t tokens = 0;
    for (size_t w = first; w < end; ++w) tokens += windows[w].tokens.size();
    for (size_t w = first; w < end; ++w) {
      const double part =
          static_cast<double>(windows[w].tokens.size()) / static_cast<double>(std::max<size_t>(tokens, 1));
      sums.add(cluster_of(sample, w), nll_of(windows[w], base == nullptr ? nullptr : &(*base)[w]),
               part * static_cast<double>(count(words, bytes)));
    }
  });
  return sums.error(ratio);
}

/// Figures by word and by byte.
RollingFigures roll(const Windows& windows, const Sample& sample, bool finite) {
  RollingFigures out;
  Sum sum;
  std::vector<double> all;
  for_each_page(windows.size(), sample, [&](size_t first, size_t end, int64_t words, int64_t bytes) {
    for (size_t w = first; w < end; ++w) {
      for (const TokenScore& score : windows[w].tokens) {
        sum.add(score.nll);
        all.push_back(score.nll);
      }
    }
    out.words += words;
    out.bytes += bytes;
  });
  out.tokens = static_cast<int64_t>(all.size());
  if (!finite || out.words == 0 || out.bytes == 0) {
    out.word_perplexity = out.word_perplexity_stderr = out.byte_perplexity = out.bits_per_byte = kNan;
    out.word_perplexity_stderr_windows = out.bits_per_byte_stderr_windows = kNan;
    return out;
  }
  const auto tokens = static_cast<double>(out.tokens), words = static_cast<double>(out.words);
  const double a_word = sum.value() / words, a_byte = sum.value() / static_cast<double>(out.bytes);
  const double mean = sum.value() / tokens;
  Sum squares;
  for (const double nll : all) squares.add((nll - mean) * (nll - mean));
  out.word_perplexity = std::exp(a_word);
  out.word_perplexity_stderr = out.word_perplexity * mean_error(squares.value(), out.tokens) * tokens / words;
  out.word_perplexity_stderr_windows = out.word_perplexity * page_error(windows, nullptr, sample, a_word,
                                                                        [](int64_t n, int64_t /*bytes*/) { return n; });
  out.byte_perplexity = std::exp(a_byte);
  out.bits_per_byte = a_byte / std::numbers::ln2;
  out.bits_per_byte_stderr_windows =
      page_error(windows, nullptr, sample, a_byte, [](int64_t /*words*/, int64_t n) { return n; }) / std::numbers::ln2;
  return out;
}

void compare_words(const Windows& base, const Windows& windows, const Sample& sample, bool finite,
                   RollingFigures& figures) {
  figures.ln_word_ratio = figures.ln_word_ratio_stderr_windows = kNan;
  if (!finite || figures.words == 0) return;
  Sum sum;
  for_each_page(windows.size(), sample, [&](size_t first, size_t end, int64_t /*words*/, int64_t /*bytes*/) {
    for (size_t w = first; w < end; ++w) sum.add(nll_of(windows[w], &base[w]));
  });
  figures.ln_word_ratio = sum.value() / static_cast<double>(figures.words);
  figures.ln_word_ratio_stderr_windows =
      page_error(windows, &base, sample, figures.ln_word_ratio, [](int64_t n, int64_t /*bytes*/) { return n; });
}

SelfFigures self_figures(const Windows& windows, const VariantFigures& figures, const Sample& sample) {
  if (figures.tokens == 0 || figures.nonfinite > 0) {
    return {.entropy = kNan, .entropy_stderr = kNan, .entropy_stderr_windows = kNan};
  }
  SelfFigures out;
  Sum sum, squares;
  for_each_token(windows, windows, [&](const TokenScore& t, const TokenScore&) { sum.add(t.entropy); });
  out.entropy = sum.value() / static_cast<double>(figures.tokens);
  for_each_token(windows, windows, [&](const TokenScore& t, const TokenScore&) {
    const double deviation = static_cast<double>(t.entropy) - out.entropy;
    squares.add(deviation * deviation);
  });
  out.entropy_stderr = mean_error(squares.value(), figures.tokens);
  out.entropy_stderr_windows = clustered(sample, windows, Weighting::tokens, out.entropy, [&](size_t w, size_t t) {
    return static_cast<double>(windows[w].tokens[t].entropy);
  });
  return out;
}

/// The value of `sorted` at fraction f: linearly interpolated at the index f (n - 1).
double percentile(const std::vector<double>& sorted, double f) {
  const double place = f * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// The percentiles of `values` by their numbers as text; NaN if `values` is empty.
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
  out.kld_reverse_mean = out.kld_reverse_stderr = out.kld_reverse_stderr_windows = kNan;
  out.top1_agreement = out.top1_stderr = out.top1_low = out.top1_high = out.top1_error = kNan;
  out.delta_p_mean = out.delta_p_rms = out.delta_p_rms_stderr = kNan;
  out.ln_ppl_ratio_stderr_windows = out.kld_stderr_windows = out.top1_stderr_windows = kNan;
  out.delta_p_mean_stderr_windows = out.delta_p_rms_stderr_windows = kNan;
  out.kld_percentiles = percentiles({}, kKldPercentiles);
  out.delta_p_percentiles = percentiles({}, kDeltaPercentiles);
  return out;
}

/// Adds Wilson's score interval of one standard error. Its number of tokens is the number that gives the share its
/// error by cluster. That error is 0 if all tokens agree or all disagree; then it is the number of all tokens.
void add_interval(VsBaseline& b, double tokens) {
  const double p = b.top1_agreement, error = b.top1_stderr_windows;
  if (!std::isfinite(error)) {
    b.top1_low = b.top1_high = b.top1_error = kNan;
    return;
  }
  const double n = error > 0 ? p * (1 - p) / (error * error) : tokens;
  const double middle = (p + 1 / (2 * n)) / (1 + 1 / n);
  const double half = std::sqrt(p * (1 - p) / n + 1 / (4 * n * n)) / (1 + 1 / n);
  b.top1_low = std::clamp(middle - half, 0.0, 1.0);
  b.top1_high = std::clamp(middle + half, 0.0, 1.0);
  b.top1_error = std::max(p - b.top1_low, b.top1_high - p);
}

Flips flips(const Windows& base, const Windows& variant, const Sample& sample, double tokens) {
  const auto lost = [&](size_t w, size_t t) {
    return is_right(sample, base, w, t) && !is_right(sample, variant, w, t) ? 1.0 : 0.0;
  };
  const auto won = [&](size_t w, size_t t) {
    return !is_right(sample, base, w, t) && is_right(sample, variant, w, t) ? 1.0 : 0.0;
  };
  double all_lost = 0, all_won = 0;
  for (size_t w = 0; w < base.size(); ++w) {
    for (size_t t = 0; t < base[w].tokens.size(); ++t) {
      all_lost += lost(w, t);
      all_won += won(w, t);
    }
  }
  Flips out{.right_to_wrong = all_lost / tokens, .wrong_to_right = all_won / tokens};
  out.accuracy_difference = (all_won - all_lost) / tokens;
  out.right_to_wrong_stderr_windows = clustered(sample, base, Weighting::tokens, out.right_to_wrong, lost);
  out.wrong_to_right_stderr_windows = clustered(sample, base, Weighting::tokens, out.wrong_to_right, won);
  out.accuracy_difference_stderr_windows = clustered(sample, base, Weighting::tokens, out.accuracy_difference,
                                                     [&](size_t w, size_t t) { return won(w, t) - lost(w, t); });
  return out;
}

/// Adds the errors by cluster of the figures that compare() has computed.
void add_cluster_errors(const Windows& base, const Windows& variant, const Sample& sample, VsBaseline& b) {
  const auto error = [&](Weighting weighting, double mean, auto value) {
    return clustered(sample, base, weighting, mean,
                     [&](size_t w, size_t t) { return value(base[w].tokens[t], variant[w].tokens[t]); });
  };
  using Token = TokenScore;
  const auto delta = [](const Token& x, const Token& y) { return static_cast<double>(y.p) - static_cast<double>(x.p); };
  b.ln_ppl_ratio_stderr_windows =
      error(Weighting::aggregate, b.ln_ppl_ratio, [](const Token& x, const Token& y) { return y.nll - x.nll; });
  b.kld_stderr_windows = error(Weighting::tokens, b.kld_mean,
                               [](const Token& /*x*/, const Token& y) { return static_cast<double>(y.kld); });
  b.kld_reverse_stderr_windows = error(Weighting::tokens, b.kld_reverse_mean, [](const Token& /*x*/, const Token& y) {
    return static_cast<double>(y.kld_reverse);
  });
  if (b.jensen_shannon_mean) {
    b.jensen_shannon_stderr_windows =
        error(Weighting::tokens, *b.jensen_shannon_mean,
              [](const Token& /*x*/, const Token& y) { return static_cast<double>(y.jensen_shannon); });
  }
  b.top1_stderr_windows = error(Weighting::tokens, b.top1_agreement,
                                [](const Token& x, const Token& y) { return x.top1 == y.top1 ? 1.0 : 0.0; });
  b.delta_p_mean_stderr_windows = error(Weighting::tokens, b.delta_p_mean, delta);
  const double squares = error(Weighting::tokens, b.delta_p_rms * b.delta_p_rms,
                               [&](const Token& x, const Token& y) { return delta(x, y) * delta(x, y); });
  b.delta_p_rms_stderr_windows = b.delta_p_rms > 0 ? squares / (2 * b.delta_p_rms) : squares;
}

VsBaseline compare(const Windows& base, const VariantFigures& base_figures, const Windows& variant,
                   const VariantFigures& figures, const Sample& sample) {
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

  // The sums are of deviations from the means, not mean(x^2) - mean(x)^2, and of the variance of the difference, not
  // s_q^2 + s_b^2 - 2 cov. The figures are the same, but no digits cancel if variant and baseline nearly agree.
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
  const double spread = std::max(0.0, delta4.value() / n - mean2 * mean2);  // rounding may make the difference negative
  if (tokens < 2) {
    out.delta_p_rms_stderr = kNan;
  } else {
    out.delta_p_rms_stderr = mean2 > 0 ? 0.5 / out.delta_p_rms * std::sqrt(spread / (n - 1)) : 0;
  }
  out.delta_p_percentiles = percentiles(std::move(deltas), kDeltaPercentiles);
  add_cluster_errors(base, variant, sample, out);
  add_interval(out, n);
  if (targets_known(sample)) out.flips = flips(base, variant, sample, n);
  return out;
}

}  // namespace

std::vector<VariantFigures> summarize(std::span<const Windows> variants, const Sample& sample) {
  std::vector<VariantFigures> out;
  out.reserve(variants.size());
  const auto notes = sample.notes;
  const bool pages = std::any_of(notes.begin(), notes.end(), [](const WindowNote& note) { return note.bytes > 0; });
  for (size_t v = 0; v < variants.size(); ++v) {
    assert(variants[v].size() == variants[0].size());
    assert(notes.empty() ? sample.aggregate != Aggregate::weighted_windows : notes.size() >= variants[v].size());
    VariantFigures& figures = out.emplace_back(summarize_one(variants[v], sample));
    const bool finite = figures.nonfinite == 0;
    if (pages) figures.rolling = roll(variants[v], sample, finite);
    if (sample.kind == ScoreKind::self) figures.self = self_figures(variants[v], figures, sample);
    add_accuracy(sample, variants[v], figures);
    if (v == 0) continue;
    figures.vs_baseline = compare(variants[0], out[0], variants[v], figures, sample);
    if (pages) compare_words(variants[0], variants[v], sample, finite && out[0].nonfinite == 0, *figures.rolling);
  }
  return out;
}

Power power_of(const VariantFigures& figures) {
  constexpr double kChange = 0.01, kNats = 0.001, kErrors = 3;
  const VsBaseline b = figures.vs_baseline.value_or(not_comparable());
  const auto tokens = [&](double error, double difference) {
    const double factor = kErrors * error / difference;
    return static_cast<double>(figures.tokens) * factor * factor;
  };
  return {.ppl_tokens = tokens(b.ln_ppl_ratio_stderr_windows, std::log1p(kChange)),
          .kld_tokens = tokens(b.kld_stderr_windows, kNats)};
}

std::vector<std::pair<size_t, size_t>> all_pairs(size_t variants) {
  std::vector<std::pair<size_t, size_t>> out;
  for (size_t a = 1; a < variants; ++a) {
    for (size_t b = a + 1; b < variants; ++b) out.emplace_back(a, b);
  }
  return out;
}

std::vector<PairFigures> compare_pairs(std::span<const Windows> variants, std::span<const VariantFigures> figures,
                                       const Sample& sample, std::span<const std::pair<size_t, size_t>> wanted) {
  std::vector<PairFigures> out;
  out.reserve(wanted.size());
  for (const auto& [a, b] : wanted) {
    PairFigures& pair = out.emplace_back(PairFigures{.a = a, .b = b});
    const int64_t tokens = figures[a].tokens;
    if (tokens == 0 || figures[a].nonfinite > 0 || figures[b].nonfinite > 0) {
      pair.ln_ppl_ratio = pair.ln_ppl_ratio_stderr = pair.kld_difference = pair.kld_difference_stderr = kNan;
      pair.ln_ppl_ratio_stderr_windows = pair.kld_difference_stderr_windows = kNan;
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
    const Windows &x = variants[a], &y = variants[b];
    pair.ln_ppl_ratio_stderr_windows =
        clustered(sample, x, Weighting::aggregate, pair.ln_ppl_ratio,
                  [&](size_t w, size_t t) { return y[w].tokens[t].nll - x[w].tokens[t].nll; });
    pair.kld_difference_stderr_windows =
        clustered(sample, x, Weighting::tokens, pair.kld_difference,
                  [&](size_t w, size_t t) { return y[w].tokens[t].kld - x[w].tokens[t].kld; });
  }
  return out;
}

}  // namespace mxlm
