#pragma once

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

/// Tokens whose most likely token was right and is wrong now, or the other way round; shares of all tokens.
struct Flips {
  double right_to_wrong = 0, right_to_wrong_stderr_windows = 0;
  double wrong_to_right = 0, wrong_to_right_stderr_windows = 0;
  double accuracy_difference = 0, accuracy_difference_stderr_windows = 0;  // wrong_to_right - right_to_wrong
};

/// Figures of one variant against the baseline. Formulas: docs/numerics.md (llama-perplexity's, in double precision).
/// Errors named ..._windows are by cluster (see summarize()), the others by token.
struct VsBaseline {
  double ppl_ratio = 0, ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0, ln_ppl_ratio_stderr_windows = 0;
  double correlation = 0;
  // KL(baseline || variant)
  double kld_mean = 0, kld_stderr = 0, kld_stderr_windows = 0, kld_median = 0, kld_max = 0;
  double kld_reverse_mean = 0, kld_reverse_stderr = 0, kld_reverse_stderr_windows = 0;  // KL(variant || baseline)
  // Jensen-Shannon divergence, where it was measured.
  std::optional<double> jensen_shannon_mean = std::nullopt, jensen_shannon_stderr = std::nullopt,
                        jensen_shannon_stderr_windows = std::nullopt;
  std::map<std::string, double> kld_percentiles;  // "0.1" ... "99.9"
  double top1_agreement = 0, top1_stderr = 0, top1_stderr_windows = 0;
  double top1_low = 0, top1_high = 0;  // Wilson's interval of one error, as of so many tokens as have that error
  double top1_error = 0;               // its longer side
  double delta_p_mean = 0, delta_p_mean_stderr_windows = 0;
  double delta_p_rms = 0, delta_p_rms_stderr = 0, delta_p_rms_stderr_windows = 0;
  std::map<std::string, double> delta_p_percentiles;
  std::optional<Flips> flips = std::nullopt;  // where targets are known
};

/// lmeval: figures a word and a byte of the raw pages, of pages whose windows are all there.
struct RollingFigures {
  double word_perplexity = 0, byte_perplexity = 0, bits_per_byte = 0;
  double word_perplexity_stderr = 0;  // by token
  double word_perplexity_stderr_windows = 0, bits_per_byte_stderr_windows = 0;
  // Against the baseline's: ln(word perplexity / its); 0 for the baseline.
  double ln_word_ratio = 0, ln_word_ratio_stderr_windows = 0;
  int64_t words = 0, bytes = 0, tokens = 0;
};

/// self: beside VariantFigures::nll, which is then -ln p of the most likely token, and `ppl`, exp of it: no perplexity.
struct SelfFigures {
  double entropy = 0, entropy_stderr = 0;  // mean over positions, nats; error by position
  double entropy_stderr_windows = 0;
};

struct VariantFigures {
  double nll = 0, ppl = 0;                                // nats a scored token by the aggregate; exp of it
  double ppl_stderr = 0;                                  // by token: PPL sqrt(var / (n - 1)), var the population's
  double nll_stderr_windows = 0, ppl_stderr_windows = 0;  // by cluster, see summarize()
  int64_t clusters = 0;                                   // with scored tokens
  int64_t tokens = 0;                                     // scored
  int64_t nonfinite = 0;                                  // of these, tokens whose logits or scores are NaN or Inf
  // Share of tokens that are the most likely one; NaN where targets are not known.
  double accuracy = std::numeric_limits<double>::quiet_NaN(), accuracy_stderr_windows = 0;
  std::optional<VsBaseline> vs_baseline;
  std::optional<RollingFigures> rolling = std::nullopt;
  std::optional<SelfFigures> self = std::nullopt;
};

/// What figures take of windows beside their scores. Spans are borrowed, one entry a window in the same order (there
/// may be more), and may be empty.
struct Sample {
  Aggregate aggregate = Aggregate::token_mean;
  /// Are wanted by weighted_windows, and make the rolling figures where they count bytes.
  std::span<const WindowNote> notes = {};
  ScoreKind kind = ScoreKind::next_token;
  std::span<const size_t> clusters = {};        // of each window, ascending from 0; empty = each window is one
  std::span<const Window* const> windows = {};  // for their targets; empty = no accuracy and no flips
};

/// `variants[v][w]` are the scores of window w under variant v (0 = baseline), all windows in window order. Sums are
/// compensated and taken in that order, so no figure depends on how the windows were computed.
///
/// Errors by token treat tokens as independent and as of equal weight. Errors by cluster do not: a figure is a ratio of
/// sums over clusters, F = sum_c S_c / sum_c n_c, and its error sqrt(C / (C - 1) sum_c (S_c - n_c F)^2) / sum_c n_c
/// over the C clusters. Of NLL and its differences S_c sums a_w m_w and n_c sums a_w over a cluster's windows, m_w
/// being a window's mean and a_w its number of tokens for Aggregate::token_mean, 1 for window_mean, its note's weight
/// for weighted_windows; KL divergence, agreement, accuracy, delta_p and entropy are means of tokens under every
/// aggregate. Words and bytes of a page are random as its NLL is, and shared out among its windows by their tokens.
///
/// What is not defined is NaN: an error of one token or one cluster, all figures of a variant with a token that is not
/// finite (such tokens are never left out), and its comparison with the baseline.
std::vector<VariantFigures> summarize(std::span<const std::vector<WindowScores>> variants, const Sample& sample);

/// Scored tokens of the same kind that it would take until a change of perplexity by 1 %, and one of KL divergence by
/// 1 mnat, were three standard errors by cluster. NaN where these are not known.
struct Power {
  double ppl_tokens = 0, kld_tokens = 0;
};
Power power_of(const VariantFigures& figures);

/// How two variants differ on the same tokens: b against a, token by token, so that what both share cancels.
struct PairFigures {
  size_t a = 0, b = 0;                               // indices of variants
  double ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0;  // ln(PPL of b / PPL of a), by the aggregate; its error by token
  double kld_difference = 0, kld_difference_stderr = 0;                       // mean KL divergence of b - that of a
  double ln_ppl_ratio_stderr_windows = 0, kld_difference_stderr_windows = 0;  // by cluster
};

/// All pairs a < b of variants[1...] (the baseline's comparisons are in VariantFigures), in order of (a, b).
std::vector<std::pair<size_t, size_t>> all_pairs(size_t variants);

/// The pairs (a, b) that are wanted. `figures` are summarize()'s of the same sample. What is not defined is NaN, as
/// there.
std::vector<PairFigures> compare_pairs(std::span<const std::vector<WindowScores>> variants,
                                       std::span<const VariantFigures> figures, const Sample& sample,
                                       std::span<const std::pair<size_t, size_t>> wanted);

}  // namespace mxlm
