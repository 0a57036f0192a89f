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
  double kld_mean = 0, kld_stderr = 0, kld_median = 0, kld_max = 0;
  std::map<std::string, double> kld_percentiles;  // "0.1" ... "99.9"
  double top1_agreement = 0, top1_stderr = 0;
  double delta_p_mean = 0, delta_p_rms = 0, delta_p_rms_stderr = 0;
  std::map<std::string, double> delta_p_percentiles;
};

struct VariantFigures {
  double nll = 0, ppl = 0;
  double ppl_stderr = 0;          // by token
  double ppl_stderr_windows = 0;  // clustered by window
  int64_t tokens = 0;
  int64_t nonfinite = 0;
  std::optional<VsBaseline> vs_baseline;
};

/// `variants[v][w]` are the scores of window w under variant v (0 = baseline), all windows in window order.
std::vector<VariantFigures> summarize(std::span<const std::vector<WindowScores>> variants, Aggregate aggregate);

}  // namespace mxlm
