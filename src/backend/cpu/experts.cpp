// The operations of the CPU backend that a mixture of experts needs beside products.

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/rows.hpp"

namespace mxlm {
namespace {

/// A logit and whose it is.
struct Choice {
  float logit = 0;
  int32_t expert = 0;
};

/// True if a comes before b: the larger logit, then the lower id; NaNs last, by id, so that there is one order.
bool precedes(const Choice& a, const Choice& b) {
  const bool a_nan = std::isnan(a.logit);
  const bool b_nan = std::isnan(b.logit);
  if (a_nan != b_nan) return b_nan;
  if (!a_nan && a.logit != b.logit) return a.logit > b.logit;
  return a.expert < b.expert;
}

/// One row of logits into `top_k` experts and their weights.
void route_row(const float* logits, int64_t experts, const RouteArgs& args, DType model, std::vector<Choice>& choices,
               int32_t* ids, float* weights) {
  choices.resize(static_cast<size_t>(experts));
  for (int32_t e = 0; e < experts; ++e) choices[static_cast<size_t>(e)] = {logits[e], e};
  const auto chosen = choices.begin() + args.top_k;
  std::partial_sort(choices.begin(), chosen, choices.end(), precedes);
  const float max = choices.front().logit;
  float sum = 0;
  const int64_t summed = args.score == RouteArgs::Score::softmax_all ? experts : args.top_k;
  for (int64_t i = 0; i < summed; ++i) sum += std::exp(choices[static_cast<size_t>(i)].logit - max);
  float chosen_sum = 0;
  for (auto c = choices.begin(); c != chosen; ++c) {
    c->logit = std::exp(c->logit - max) / sum;
    chosen_sum += c->logit;
  }
  std::sort(choices.begin(), chosen, [](const Choice& a, const Choice& b) { return a.expert < b.expert; });
  for (auto c = choices.begin(); c != chosen; ++c) {
    float weight = args.normalise ? c->logit / chosen_sum : c->logit;
    if (args.round_weights && model == DType::bf16) weight = to_float(to_bfloat16(weight));
    *ids++ = c->expert;
    *weights++ = weight;
  }
}

}  // namespace

Routing CpuBackend::route(const Tensor& logits, const RouteArgs& args) {
  assert(args.top_k >= 1 && args.top_k <= logits.cols());
  const auto size = static_cast<size_t>(logits.rows() * args.top_k);
  Routing routing{.top_k = args.top_k, .experts = std::vector<int32_t>(size), .weights = std::vector<float>(size)};
  const int64_t experts = logits.cols();
  for_rows(logits.rows(), 64 * experts, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(experts));
    std::vector<Choice> choices;
    for (int64_t r = begin; r < end; ++r) {
      const auto* from = static_cast<const std::byte*>(logits.data()) +
                         r * logits.stride() * static_cast<int64_t>(dtype_size(logits.dtype()));
      cpu::convert_row(isa_, logits.dtype(), from, DType::f32, row.data(), experts);
      route_row(row.data(), experts, args, logits.dtype(), choices, routing.experts.data() + r * args.top_k,
                routing.weights.data() + r * args.top_k);
    }
  });
  return routing;
}

void CpuBackend::accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights,
                            Tensor& sum) {
  assert(static_cast<int64_t>(rows.size()) == y.rows() && weights.size() == rows.size());
  assert(sum.dtype() == DType::f32 && sum.cols() == y.cols());
  const auto run = [&]<typename T>(T*) {
    for_rows(y.rows(), y.cols() * static_cast<int64_t>(sizeof(T) + 8), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t row = rows[static_cast<size_t>(i)];
        assert(row >= 0 && row < sum.rows());
        cpu::accumulate_row(isa_, y.row<T>(i), weights[static_cast<size_t>(i)], y.cols(), sum.row<float>(row));
      }
    });
  };
  y.dtype() == DType::bf16 ? run(static_cast<BFloat16*>(nullptr)) : run(static_cast<float*>(nullptr));
}

void CpuBackend::zero(Tensor& x) {
  const auto size = static_cast<int64_t>(dtype_size(x.dtype()));
  auto* data = static_cast<std::byte*>(x.data());
  for_rows(x.rows(), x.cols() * size, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memset(data + r * x.stride() * size, 0, static_cast<size_t>(x.cols() * size));
    }
  });
}

}  // namespace mxlm
