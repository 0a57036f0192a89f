#include "backend/routing.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace mxlm {

Routing empty_routing(int64_t rows, const RoutingArgs& args) {
  const auto size = static_cast<size_t>(rows * args.top_k);
  return {.top_k = args.top_k, .experts = std::vector<int32_t>(size), .weights = std::vector<float>(size)};
}

/// True if a comes before b: the larger logit, then the lower id; NaNs last, by id, so that there is one order.
bool Router::precedes(const Choice& a, const Choice& b) {
  const bool a_nan = std::isnan(a.logit);
  const bool b_nan = std::isnan(b.logit);
  if (a_nan != b_nan) return b_nan;
  if (!a_nan && a.logit != b.logit) return a.logit > b.logit;
  return a.expert < b.expert;
}

void Router::choose(std::span<const float> logits, int64_t r, Routing& out) {
  assert(args_.top_k >= 1 && static_cast<size_t>(args_.top_k) <= logits.size());
  choices_.resize(logits.size());
  for (size_t e = 0; e < logits.size(); ++e) choices_[e] = {logits[e], static_cast<int32_t>(e)};
  const auto chosen = choices_.begin() + args_.top_k;
  std::partial_sort(choices_.begin(), chosen, choices_.end(), precedes);
  const float max = choices_.front().logit;
  float sum = 0;
  const auto summed = args_.score == RoutingArgs::Score::softmax_all ? choices_.end() : chosen;
  for (auto c = choices_.begin(); c != summed; ++c) sum += std::exp(c->logit - max);
  float chosen_sum = 0;
  for (auto c = choices_.begin(); c != chosen; ++c) {
    c->logit = std::exp(c->logit - max) / sum;
    chosen_sum += c->logit;
  }
  std::sort(choices_.begin(), chosen, [](const Choice& a, const Choice& b) { return a.expert < b.expert; });
  auto place = static_cast<size_t>(r * args_.top_k);
  for (auto c = choices_.begin(); c != chosen; ++c, ++place) {
    float weight = args_.normalise ? c->logit / chosen_sum : c->logit;
    if (args_.round_weights && model_ == DType::bf16) weight = to_float(to_bfloat16(weight));
    out.experts[place] = c->expert;
    out.weights[place] = weight;
  }
}

}  // namespace mxlm
