#include "backend/cpu/head_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "backend/cpu/simd/math.hpp"

namespace mxlm::cpu {
namespace {

constexpr int64_t kLanes = 16;
// Padding: finite, and its term is 0.
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The largest logit has grown to `max`: notes it and its first place, and moves the sum to the new M.
double raise_max(const LogitChunk& chunk, TokenState& state, float max) {
  const float* found = std::find(chunk.logits, chunk.logits + chunk.count, max);
  const bool all_nan = found == chunk.logits + chunk.count;
  state.top1 = static_cast<int32_t>(chunk.first + (all_nan ? 0 : found - chunk.logits));
  const float before = state.max;
  state.max = max;
  if (!state.started) {
    state.started = true;
    return 0;  // nothing was there before
  }
  const double change = static_cast<double>(before) - static_cast<double>(max);
  const double rescale = std::exp2(static_cast<double>(kLog2e) * change);
  if (state.self) {
    for (size_t j = 0; j < state.sum.size(); ++j) {
      state.moment[j] = rescale * (state.moment[j] + change * state.sum[j]);
    }
  }
  for (double& s : state.sum) s *= rescale;
  for (double& s : state.reverse) s *= rescale;
  return rescale;
}

void note_target(const LogitChunk& chunk, TokenState& state) {
  const int64_t place = chunk.target - chunk.first;
  if (place >= 0 && place < chunk.count) state.target = chunk.logits[place];
}

void pad(const LogitChunk& chunk) {
  std::fill(chunk.logits + chunk.count, chunk.logits + round_up(chunk.count, kLanes), kLowest);
}

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/head.inl"
#include "backend/cpu/simd/each_target.hpp"

namespace {

double total(const std::array<double, 8>& lanes) { return std::accumulate(lanes.begin(), lanes.end(), 0.0); }

float log_sum(const TokenState& state) { return static_cast<float>(std::log(total(state.sum))); }

}  // namespace

double add_baseline_chunk(Isa isa, const LogitChunk& chunk, TokenState& state, float* powers) {
  const auto add = [&]<bool kSelf>(std::bool_constant<kSelf>) {
    return MXLM_DISPATCH(isa, baseline_chunk<kSelf>(chunk, state, powers));
  };
  return state.self ? add(std::true_type()) : add(std::false_type());
}

void add_variant_chunk(Isa isa, const LogitChunk& chunk, TokenState& state, const float* baseline, const float* powers,
                       double rescale) {
  const auto add = [&]<bool kSelf>(std::bool_constant<kSelf>) {
    return MXLM_DISPATCH(isa, variant_chunk<kSelf>(chunk, state, baseline, powers, rescale));
  };
  state.self ? add(std::true_type()) : add(std::false_type());
}

void add_jensen_shannon_chunk(const float* baseline, const TokenState& baseline_state, const float* logits,
                              TokenState& state, int64_t count) {
  const float baseline_log_sum = log_sum(baseline_state), own_log_sum = log_sum(state);
  std::array<float, kLanes> sums{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t lanes = std::min(kLanes, count - i);
    for (int64_t j = 0; j < lanes; ++j) {
      const float log_p = (baseline[i + j] - baseline_state.max) - baseline_log_sum;
      const float log_q = (logits[i + j] - state.max) - own_log_sum;
      const float d = std::abs(log_q - log_p);
      const float z = exp2_sum_portable(-d * kLog2e);
      // ln(2 / (1 + z)) = 2 artanh(s), s at most 1/3
      const float s = (1 - z) / (3 + z), s2 = s * s;
      float series = 1.0F / 13;
      for (const float c : {1.0F / 11, 1.0F / 9, 1.0F / 7, 1.0F / 5, 1.0F / 3, 1.0F}) series = series * s2 + c;
      const float far = (1 + z) * (2 * s * series) - z * d;
      const float x2 = d * d / 4;
      const float near = std::sqrt(z) * x2 * (1 + x2 * x2 / 72);
      const float larger = exp2_sum_portable(std::min(std::max(log_p, log_q), 0.0F) * kLog2e);
      sums[j] += larger * (d < 0.25F ? near : far);
    }
  }
  state.jensen_shannon += std::accumulate(sums.begin(), sums.end(), 0.0) / 2;
}

TokenScore finish_token(const TokenState& state, const TokenState& baseline) {
  const double sum = total(state.sum);
  const double log_sum = std::log(sum);
  const double max = state.max;
  TokenScore score;
  score.nll = (max - static_cast<double>(state.self ? state.max : state.target)) + log_sum;
  if (state.self) score.entropy = static_cast<float>(log_sum - total(state.moment) / sum);
  score.p = static_cast<float>(std::exp(-score.nll));
  score.top1 = state.top1;
  score.finite = state.finite && std::isfinite(max) && std::isfinite(log_sum);
  if (&state != &baseline) {
    const double baseline_sum = total(baseline.sum);
    const double shift = max - static_cast<double>(baseline.max), log_ratio = log_sum - std::log(baseline_sum);
    score.kld = total(state.cross) / baseline_sum + shift + log_ratio;
    score.kld_reverse = static_cast<float>(total(state.reverse) / sum - shift - log_ratio);
  }
  return score;
}

}  // namespace mxlm::cpu
