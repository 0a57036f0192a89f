#include "statistics/noise.hpp"

#include <cmath>

#include "statistics/cluster_sums.hpp"

namespace mxlm {
namespace {

using Windows = std::vector<WindowScores>;

/// The standard deviation of a weighted mean of tokens over orders of summation. `difference` is a token's difference
/// between the two orders.
template <typename Difference>
double deviation_of(const Windows& windows, const Sample& sample, bool by_aggregate, Difference difference) {
  Sum total, squares, weights;
  int64_t tokens = 0;
  const auto weight_of_token = [&](size_t w) {
    const auto count = static_cast<double>(windows[w].tokens.size());
    if (!by_aggregate || sample.aggregate == Aggregate::token_mean) return 1.0;
    return (sample.aggregate == Aggregate::window_mean ? 1.0 : sample.notes[w].weight) / count;
  };
  for (size_t w = 0; w < windows.size(); ++w) {
    for (size_t t = 0; t < windows[w].tokens.size(); ++t) total.add(difference(w, t));
    tokens += static_cast<int64_t>(windows[w].tokens.size());
  }
  if (tokens < 2) return NoiseFigures::kUnknown;
  const auto n = static_cast<double>(tokens);
  const double mean = total.value() / n;
  for (size_t w = 0; w < windows.size(); ++w) {
    for (size_t t = 0; t < windows[w].tokens.size(); ++t) {
      const double weight = weight_of_token(w), d = weight * (difference(w, t) - mean);
      squares.add(d * d);
      weights.add(weight);
    }
  }
  return std::sqrt(squares.value() * n / (n - 1) / 2) / weights.value();
}

}  // namespace

std::vector<NoiseFigures> measure_noise(std::span<const Windows> scores, std::span<const Windows> reversed,
                                        const Sample& sample) {
  std::vector<NoiseFigures> out(scores.size());
  for (size_t v = 0; v < scores.size(); ++v) {
    const auto nll = [&](size_t i, size_t w, size_t t) {
      return reversed[i][w].tokens[t].nll - scores[i][w].tokens[t].nll;
    };
    out[v].nll_sd = deviation_of(scores[v], sample, true, [&](size_t w, size_t t) { return nll(v, w, t); });
    const auto flipped = [&](size_t w, size_t t) {
      return reversed[0][w].tokens[t].top1 != scores[0][w].tokens[t].top1 ? 1.0 : 0.0;
    };
    Sum flips;
    int64_t tokens = 0;
    for (size_t w = 0; w < scores[0].size(); ++w) {
      for (size_t t = 0; t < scores[0][w].tokens.size(); ++t) flips.add(flipped(w, t));
      tokens += static_cast<int64_t>(scores[0][w].tokens.size());
    }
    if (tokens > 0) out[v].floor_flips = flips.value() / static_cast<double>(tokens);
    if (v == 0) continue;
    out[v].ln_ppl_ratio_sd =
        deviation_of(scores[v], sample, true, [&](size_t w, size_t t) { return nll(v, w, t) - nll(0, w, t); });
    out[v].kld_sd = deviation_of(scores[v], sample, false, [&](size_t w, size_t t) {
      return reversed[v][w].tokens[t].kld - scores[v][w].tokens[t].kld;
    });
    const auto agrees = [&](const auto& run, size_t w, size_t t) {
      return run[v][w].tokens[t].top1 == run[0][w].tokens[t].top1 ? 1.0 : 0.0;
    };
    out[v].top1_sd = deviation_of(scores[v], sample, false,
                                  [&](size_t w, size_t t) { return agrees(reversed, w, t) - agrees(scores, w, t); });
  }
  return out;
}

}  // namespace mxlm
