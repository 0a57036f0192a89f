#include "engine/noise_floor.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/interrupt.hpp"
#include "engine/walk.hpp"
#include "statistics/cluster_sums.hpp"
#include "statistics/noise.hpp"
#include "variants/resolve.hpp"

namespace mxlm {
namespace {

constexpr int64_t kFloorTokens = 8192;

/// The baseline's last hidden states of these windows, as float32 in host memory.
std::vector<std::vector<float>> hidden_states(const ModelSpec& model, Backend& backend, DType compute,
                                              const ResolvedVariant& baseline, std::span<const Window* const> windows) {
  const ForwardPass forward(model, backend, compute);
  WalkState state;
  for (const Window* window : windows) {
    const std::span<const int32_t> tokens = window->tokens;
    std::vector<int32_t> keys;
    if (window->keys > 0) keys.push_back(window->keys);
    state.add(forward, {&tokens, 1}, std::move(keys));
  }
  StreamingVisitor visitor(backend, compute);
  walk(forward, backend, build_tree(model, {&baseline, 1}), state, visitor);
  std::vector<std::vector<float>> values;
  values.reserve(windows.size());
  for (const Tensor& tensor : state.hidden.front()) {
    values.emplace_back(static_cast<size_t>(tensor.rows() * tensor.cols()));
    backend.download(tensor, values.back());
  }
  return values;
}

/// The sum of the KL divergence over the scored tokens of a window. `states` are the last hidden states of the window
/// in both orders of summation.
double window_divergence(Backend& backend, const ForwardPass& forward, const StepLinear& head, const Window& window,
                         ScoreKind kind, std::span<const std::vector<float>* const> states) {
  std::vector<int32_t> rows, targets;
  const auto begin = static_cast<size_t>(window.score_begin);
  for (size_t t = begin; t < begin + window.scored(); ++t) {
    rows.push_back(static_cast<int32_t>(t) - 1);
    targets.push_back(window.target(t));
  }
  const int64_t offsets[] = {0, static_cast<int64_t>(rows.size())};
  std::vector<Operand> operands;
  operands.reserve(states.size());
  for (const std::vector<float>* values : states) {
    const auto positions = static_cast<int64_t>(window.tokens.size());
    const int64_t cols = static_cast<int64_t>(values->size()) / positions;
    const HostMatrix matrix{.type = DType::f32,
                            .rows = positions,
                            .cols = cols,
                            .stride = cols,
                            .data = std::as_bytes(std::span(*values)).data()};
    operands.push_back(forward.head_operand(backend.upload(matrix, forward.dtype()), rows, offsets, head));
  }
  std::vector<std::vector<TokenScore>> scores(states.size(), std::vector<TokenScore>(rows.size()));
  std::vector<HeadJob> inputs;
  inputs.reserve(states.size());
  for (size_t i = 0; i < states.size(); ++i) {
    HeadJob& input = inputs.emplace_back(forward.head_job(operands[i], head));
    input.scores = scores[i];
    input.kind = kind;
  }
  backend.score(inputs, targets);
  backend.settle();
  Sum sum;
  for (const TokenScore& score : scores.back()) sum.add(score.kld);
  return sum.value();
}

}  // namespace

double measure_floor(const ModelSpec& model, Backend& backend, Backend& reversed, DType compute,
                     std::span<const Window> windows, ScoreKind kind) {
  int64_t all = 0;
  for (const Window& window : windows) all += static_cast<int64_t>(window.tokens.size());
  if (all == 0) return NoiseFigures::kUnknown;
  // Takes every n-th window, beginning in the middle of the first n.
  const auto every = static_cast<size_t>((all + kFloorTokens - 1) / kFloorTokens);
  std::vector<const Window*> some;
  for (size_t w = std::min(every / 2, windows.size() - 1); w < windows.size(); w += every) some.push_back(&windows[w]);
  const ResolvedVariant baseline = resolve(model, Variant::baseline());
  const auto states = hidden_states(model, backend, compute, baseline, some);
  const auto others = hidden_states(model, reversed, compute, baseline, some);
  model.embedding.release();
  const ForwardPass forward(model, backend, compute);
  const StepLinear head = StreamingVisitor(backend, compute).head(model, baseline.head());
  Sum sum;
  int64_t tokens = 0;
  for (size_t w = 0; w < some.size(); ++w) {
    throw_if_interrupted();
    const std::vector<float>* const both[] = {&states[w], &others[w]};
    sum.add(window_divergence(backend, forward, head, *some[w], kind, both));
    tokens += static_cast<int64_t>(some[w]->scored());
  }
  model.lm_head.weight.release();
  return sum.value() / static_cast<double>(tokens);
}

}  // namespace mxlm
