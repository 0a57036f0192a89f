#pragma once

// Figures of variants and their errors, from the scores of tokens.

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

/// Scores of one variant for one window, in token order.
struct WindowScores {
  std::vector<TokenScore> tokens;
};

/// Flips: tokens whose most likely token is right under the baseline and wrong under the variant, or the other way
/// round. All values are shares of all tokens.
struct Flips {
  double right_to_wrong = 0, right_to_wrong_stderr_windows = 0;
  double wrong_to_right = 0, wrong_to_right_stderr_windows = 0;
  double accuracy_difference = 0, accuracy_difference_stderr_windows = 0;  // wrong_to_right - right_to_wrong
};

/// Figures of one variant compared with the baseline. docs/numerics.md has the formulas, which are those of
/// llama-perplexity in double precision. Errors named ..._windows are by cluster (see summarize()), others by token.
struct VsBaseline {
  double ppl_ratio = 0, ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0, ln_ppl_ratio_stderr_windows = 0;
  double correlation = 0;
  // KL(baseline || variant)
  double kld_mean = 0, kld_stderr = 0, kld_stderr_windows = 0, kld_median = 0, kld_max = 0;
  double kld_reverse_mean = 0, kld_reverse_stderr = 0, kld_reverse_stderr_windows = 0;  // KL(variant || baseline)
  // Jensen-Shannon divergence; nullopt if it was not measured.
  std::optional<double> jensen_shannon_mean = std::nullopt, jensen_shannon_stderr = std::nullopt,
                        jensen_shannon_stderr_windows = std::nullopt;
  std::map<std::string, double> kld_percentiles;  // "0.1" ... "99.9"
  double top1_agreement = 0, top1_stderr = 0, top1_stderr_windows = 0;
  double top1_low = 0, top1_high = 0;  // Wilson's interval of one standard error by cluster
  double top1_error = 0;               // the longer side of the interval
  double delta_p_mean = 0, delta_p_mean_stderr_windows = 0;
  double delta_p_rms = 0, delta_p_rms_stderr = 0, delta_p_rms_stderr_windows = 0;
  std::map<std::string, double> delta_p_percentiles;
  std::optional<Flips> flips = std::nullopt;  // nullopt if targets are not known
};

/// Figures by word and by byte of the raw pages, for the protocol lmeval. Only pages with all their windows count.
struct RollingFigures {
  double word_perplexity = 0, byte_perplexity = 0, bits_per_byte = 0;
  double word_perplexity_stderr = 0;  // by token
  double word_perplexity_stderr_windows = 0, bits_per_byte_stderr_windows = 0;
  // ln(word perplexity / the baseline's word perplexity); 0 for the baseline.
  double ln_word_ratio = 0, ln_word_ratio_stderr_windows = 0;
  int64_t words = 0, bytes = 0, tokens = 0;
};

/// Figures for the protocol self. There VariantFigures::nll is -ln p of the most likely token, so `ppl`, which is its
/// exp, is not a perplexity of a text.
struct SelfFigures {
  double entropy = 0, entropy_stderr = 0;  // mean over positions, nats; error by position
  double entropy_stderr_windows = 0;
};

/// All figures of one variant.
struct VariantFigures {
  double nll = 0, ppl = 0;                                // mean by the aggregate, in nats; exp of it
  double ppl_stderr = 0;                                  // by token: PPL sqrt(population variance / (n - 1))
  double nll_stderr_windows = 0, ppl_stderr_windows = 0;  // by cluster, see summarize()
  int64_t clusters = 0;                                   // clusters with scored tokens
  int64_t tokens = 0;                                     // scored tokens
  int64_t nonfinite = 0;                                  // scored tokens whose logits or scores are NaN or Inf
  // Share of tokens whose most likely token is the text's token; NaN if targets are not known.
  double accuracy = std::numeric_limits<double>::quiet_NaN(), accuracy_stderr_windows = 0;
  std::optional<VsBaseline> vs_baseline;
  std::optional<RollingFigures> rolling = std::nullopt;
  std::optional<SelfFigures> self = std::nullopt;
};

/// What figures need to know of windows besides scores. Spans are borrowed. Each has an entry for each window, in the
/// same order, and may have more entries or be empty.
struct Sample {
  Aggregate aggregate = Aggregate::token_mean;
  /// Aggregate::weighted_windows needs notes. Notes that count bytes give rolling figures.
  std::span<const WindowNote> notes = {};
  ScoreKind kind = ScoreKind::next_token;
  std::span<const size_t> clusters = {};  // cluster of each window, ascending from 0; empty = each window is a cluster
  std::span<const Window* const> windows = {};  // give the targets; empty = no accuracy and no flips
};

/// Computes the figures of all variants. `variants[v][w]` are the scores of window w under variant v (0 = baseline).
/// Sums are compensated and follow the order of windows, so no figure depends on how the windows were computed.
///
/// Errors by token take tokens as independent and of equal weight. Errors by cluster do not. For them, a figure is a
/// ratio of sums over clusters, F = sum_c S_c / sum_c n_c, whose error is
/// sqrt(C / (C - 1) sum_c (S_c - n_c F)^2) / sum_c n_c over the C clusters. For NLL and its differences, S_c is the sum
/// of a_w m_w and n_c is the sum of a_w over the windows w of the cluster. m_w is the mean of the window, and a_w is
/// its number of tokens for Aggregate::token_mean, 1 for window_mean, and the weight in its note for weighted_windows.
/// KL divergence, agreement, accuracy, delta_p and entropy are means of tokens under every aggregate. The numbers of
/// words and bytes of a page are random like its NLL; the windows of a page share them in proportion to their tokens.
///
/// A figure that is not defined is NaN: an error of one token or one cluster, and all figures and comparisons of a
/// variant that has a token with a score that is not finite. Such tokens are never left out.
std::vector<VariantFigures> summarize(std::span<const std::vector<WindowScores>> variants, const Sample& sample);

/// The number of scored tokens of the same kind with which a change of perplexity by 1 %, or of KL divergence by 1
/// mnat, would be three standard errors by cluster. NaN if these errors are not known.
struct Power {
  double ppl_tokens = 0, kld_tokens = 0;
};
Power power_of(const VariantFigures& figures);

/// How variant b differs from variant a on the same tokens. Differences are taken token by token, so that what both
/// variants have in common cancels.
struct PairFigures {
  size_t a = 0, b = 0;                               // indices of variants
  double ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0;  // ln(PPL of b / PPL of a) by the aggregate, and its error by token
  double kld_difference = 0, kld_difference_stderr = 0;  // mean KL divergence of b minus the mean of a
  double ln_ppl_ratio_stderr_windows = 0, kld_difference_stderr_windows = 0;  // by cluster
};

/// All pairs a < b of the variants without the baseline, in order of (a, b). Comparisons with the baseline are in
/// VariantFigures.
std::vector<std::pair<size_t, size_t>> all_pairs(size_t variants);

/// Compares the pairs (a, b) of `wanted`. `figures` are the result of summarize() for the same sample. A figure that is
/// not defined is NaN, as in summarize().
std::vector<PairFigures> compare_pairs(std::span<const std::vector<WindowScores>> variants,
                                       std::span<const VariantFigures> figures, const Sample& sample,
                                       std::span<const std::pair<size_t, size_t>> wanted);

}  // namespace mxlm
