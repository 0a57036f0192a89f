#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "eval/protocol.hpp"

namespace mxlm {

/// Scores of one variant for one window, in token order.
struct WindowScores {
  std::vector<TokenScore> tokens;
};

/// Figures of one variant against the baseline. Formulas: docs/numerics.md (llama-perplexity's, in double precision).
struct VsBaseline {
  double ppl_ratio = 0, ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0;
  double correlation = 0;
  double kld_mean = 0, kld_stderr = 0, kld_median = 0, kld_max = 0;  // KL(baseline || variant)
  double kld_reverse_mean = 0, kld_reverse_stderr = 0;               // KL(variant || baseline)
  // Jensen-Shannon divergence, where it was measured.
  std::optional<double> jensen_shannon_mean = std::nullopt, jensen_shannon_stderr = std::nullopt;
  std::map<std::string, double> kld_percentiles;  // "0.1" ... "99.9"
  double top1_agreement = 0, top1_stderr = 0;
  double delta_p_mean = 0, delta_p_rms = 0, delta_p_rms_stderr = 0;
  std::map<std::string, double> delta_p_percentiles;
};

/// lmeval: figures a word and a byte of the raw pages, of pages whose windows are all there.
struct RollingFigures {
  double word_perplexity = 0, byte_perplexity = 0, bits_per_byte = 0;
  double word_perplexity_stderr = 0;  // by token
  int64_t words = 0, bytes = 0, tokens = 0;
};

/// self: beside VariantFigures::nll, which is then -ln p of the most likely token, and `ppl`, exp of it: no perplexity.
struct SelfFigures {
  double entropy = 0, entropy_stderr = 0;  // mean over positions, nats; error by position
};

struct VariantFigures {
  double nll = 0, ppl = 0;        // nats a scored token by the aggregate; exp of it
  double ppl_stderr = 0;          // by token: PPL sqrt(var / (n - 1)), var the population's
  double ppl_stderr_windows = 0;  // clustered by window, see summarize()
  int64_t tokens = 0;             // scored
  int64_t nonfinite = 0;          // of these, tokens whose logits or scores are NaN or Inf
  std::optional<VsBaseline> vs_baseline;
  std::optional<RollingFigures> rolling = std::nullopt;
  std::optional<SelfFigures> self = std::nullopt;
};

/// `variants[v][w]` are the scores of window w under variant v (0 = baseline), all windows in window order. Sums are
/// compensated and taken in that order, so no figure depends on how the windows were computed.
///
/// ppl_stderr_windows is the cluster-robust error of a mean: for G windows of weight a_w (of all: A) and mean m_w it is
/// PPL sqrt(G / (G - 1) sum_w a_w^2 (m_w - mean)^2) / A, where a window's weight is its number of tokens for
/// Aggregate::token_mean, 1 for window_mean, and its note's for weighted_windows. Errors by token treat tokens as
/// independent (and as of equal weight), so it is usually the larger one.
///
/// What is not defined is NaN: an error of one token or one window, all figures of a variant with a token that is not
/// finite (such tokens are never left out), and its comparison with the baseline.
///
/// `notes`, one a window in the same order (there may be more), are wanted by weighted_windows, and make the rolling
/// figures where they count bytes.
std::vector<VariantFigures> summarize(std::span<const std::vector<WindowScores>> variants, Aggregate aggregate,
                                      std::span<const WindowNote> notes = {}, ScoreKind kind = ScoreKind::next_token);

/// How two variants differ on the same tokens: b against a, token by token, so that what both share cancels.
struct PairFigures {
  size_t a = 0, b = 0;                               // indices of variants
  double ln_ppl_ratio = 0, ln_ppl_ratio_stderr = 0;  // ln(PPL of b / PPL of a), by the aggregate; its error by token
  double kld_difference = 0, kld_difference_stderr = 0;  // mean KL divergence of b - that of a
};

/// All pairs a < b of variants[1...] (the baseline's comparisons are in VariantFigures), in order of (a, b). `figures`
/// are summarize()'s. What is not defined is NaN, as there.
std::vector<PairFigures> compare_pairs(std::span<const std::vector<WindowScores>> variants,
                                       std::span<const VariantFigures> figures);

}  // namespace mxlm
