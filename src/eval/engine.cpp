#include "eval/engine.hpp"

#include <algorithm>
#include <chrono>

#include "base/error.hpp"
#include "base/interrupt.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Tells attention which keys of each window are real, if any are not.
void mark_padding(std::span<const Window> windows, Batch& batch) {
  if (std::none_of(windows.begin(), windows.end(), [](const Window& w) { return w.keys > 0; })) return;
  for (const Window& w : windows) batch.keys.push_back(w.keys > 0 ? w.keys : static_cast<int32_t>(w.tokens.size()));
}

}  // namespace

Engine::Engine(const ModelSpec& model, Backend& backend, const ForwardPass& forward, const VariantTree& tree,
               const Plan& plan, ScoreKind kind)
    : model_(model),
      backend_(backend),
      forward_(forward),
      tree_(tree),
      plan_(plan),
      kind_(kind),
      store_(backend, forward.dtype(), plan.resident),
      layer_errors_(backend, tree) {}

EngineResult Engine::run(std::span<const Window> windows, const std::function<void(const Progress&)>& on_progress) {
  const size_t variants = tree_.leaf.size();
  EngineResult result;
  result.scores.resize(variants);
  result.forward_seconds.assign(variants, 0);
  result.prepare_seconds.assign(variants, 0);
  result.head_seconds.assign(variants, 0);

  // Progress counts nodes, which are what is computed; the head counts as one step.
  int64_t positions = 0;
  for (const Window& window : windows) positions += static_cast<int64_t>(window.tokens.size());
  const double nodes_a_token = static_cast<double>(tree_.nodes() + variants);
  Progress progress{.done = 0,
                    .total = static_cast<double>(positions) * static_cast<double>(variants),
                    .seconds = 0,
                    .round = 0,
                    .rounds = plan_.rounds.size()};
  const auto start = Clock::now();
  const auto on_work = [&](double node_tokens) {
    progress.done += node_tokens / nodes_a_token * static_cast<double>(variants);
    progress.seconds = seconds_since(start);
    if (on_progress) on_progress(progress);
  };

  try {
    if (heads_.empty()) {
      for (size_t v = 0; v < variants; ++v) {
        auto [weight, seconds] = store_.get(model_.head, tree_.head[v]);
        heads_.push_back({.weight = std::move(weight),
                          .activations = tree_.head[v].activations,
                          .bf16_ops = tree_.head[v].bf16_ops});
        result.prepare_seconds[v] += seconds;
      }
      model_.head.weight.release();
    }
    for (const auto& batches : plan_.rounds) {
      run_round(windows, batches, result, on_work);
      ++progress.round;
    }
  } catch (const Interrupted&) {
    result.complete = false;
    layer_errors_.drop_round();
  }
  for (size_t v = 0; v < variants; ++v) result.layer_errors.push_back(layer_errors_.of_variant(v));
  return result;
}

void Engine::run_round(std::span<const Window> windows, const std::vector<Plan::Range>& batches, EngineResult& result,
                       const std::function<void(double)>& on_work) {
  std::vector<MicroBatch> micro_batches;
  std::vector<std::vector<Tensor>> hidden(1);  // [node][micro-batch]
  int64_t positions = 0;
  for (const auto& [begin, end] : batches) {
    std::vector<std::span<const int32_t>> tokens;
    for (size_t w = begin; w < end; ++w) tokens.emplace_back(windows[w].tokens);
    micro_batches.push_back(forward_.make_batch(tokens));
    mark_padding(windows.subspan(begin, end - begin), micro_batches.back().batch);
    hidden[0].push_back(forward_.embed(micro_batches.back()));
    positions += micro_batches.back().batch.rows();
  }
  model_.embedding.release();

  const size_t variants = tree_.leaf.size();
  std::vector<double> forward_seconds(variants, 0), prepare_seconds(variants, 0), head_seconds(variants, 0);
  for (int64_t step = 0; step < forward_.steps(); ++step) {
    const auto& nodes = tree_.levels[static_cast<size_t>(step)];
    const auto linears = forward_.step_linears(step);
    if (step + 1 < forward_.steps()) {
      for (const LinearSpec* linear : forward_.step_linears(step + 1)) store_.will_need(*linear);
    }
    std::vector<StepWeights> weights(nodes.size());
    for (StepWeights& w : weights) w.linears.resize(linears.size());

    // The last child of a parent may overwrite the parent's hidden state.
    std::vector<size_t> children(hidden.size(), 0);
    for (const TreeNode& node : nodes) ++children[node.parent];
    std::vector<std::vector<Tensor>> next(nodes.size());
    for (size_t n = 0; n < nodes.size(); ++n) {
      double preparing = prepare_node(linears, forward_.prepared_linears(step), nodes, n, weights);
      auto& parent = hidden[nodes[n].parent];
      const bool last = --children[nodes[n].parent] == 0;
      // Experts are prepared one at a time, while the step runs.
      double fetching = 0;
      const ForwardPass::Fetch fetch = [&](size_t l) {
        auto [weight, took] = store_.get(*linears[l], nodes[n].products.linears[l]);
        fetching += took;
        return weight;
      };
      const auto start = Clock::now();
      std::vector<const Tensor*> in;
      std::vector<Tensor*> out;
      next[n].reserve(parent.size());
      for (Tensor& state : parent) {
        in.push_back(&state);
        out.push_back(last ? &state
                           : &next[n].emplace_back(backend_.empty(forward_.dtype(), state.rows(), state.cols())));
      }
      forward_.run(step, weights[n], fetch, micro_batches, in, out, [&](int64_t rows) {
        throw_if_interrupted();
        on_work(static_cast<double>(rows));
      });
      if (last) next[n] = std::move(parent);
      const double seconds = seconds_since(start) - fetching;
      preparing += fetching;
      for (const size_t v : nodes[n].variants) {
        forward_seconds[v] += seconds;
        prepare_seconds[v] += preparing;
      }
      weights[n] = {};
    }
    for (const LinearSpec* linear : linears) linear->weight.release();
    hidden = std::move(next);
    layer_errors_.add_step(static_cast<size_t>(step), hidden);
  }

  std::vector<std::vector<WindowScores>> scores(variants);
  for (size_t b = 0; b < batches.size(); ++b) {
    throw_if_interrupted();
    std::vector<const Tensor*> states;
    for (size_t v = 0; v < variants; ++v) states.push_back(&hidden[tree_.leaf[v]][b]);
    score_batch(windows.subspan(batches[b].first, batches[b].second - batches[b].first), micro_batches[b], states,
                scores, head_seconds);
    on_work(static_cast<double>(micro_batches[b].batch.rows()) * static_cast<double>(variants));
  }

  // Only a finished round counts.
  layer_errors_.commit_round();
  for (size_t v = 0; v < variants; ++v) {
    std::move(scores[v].begin(), scores[v].end(), std::back_inserter(result.scores[v]));
    result.forward_seconds[v] += forward_seconds[v];
    result.prepare_seconds[v] += prepare_seconds[v];
    result.head_seconds[v] += head_seconds[v];
  }
  result.positions += positions;
}

double Engine::prepare_node(std::span<const LinearSpec* const> linears, size_t prepared,
                            const std::vector<TreeNode>& nodes, size_t n, std::vector<StepWeights>& weights) {
  double seconds = 0;
  for (size_t l = 0; l < linears.size(); ++l) {
    throw_if_interrupted();
    const ProductSpec& spec = nodes[n].products.linears[l];
    if (l < prepared && !weights[n].linears[l].weight) {
      auto [weight, took] = store_.get(*linears[l], spec);
      seconds += took;
      for (size_t m = n; m < nodes.size(); ++m) {
        if (nodes[m].products.linears[l].same_weights(spec)) weights[m].linears[l].weight = weight;
      }
    }
    weights[n].linears[l].activations = spec.activations;
    weights[n].linears[l].outputs = spec.outputs;
    weights[n].linears[l].bf16_ops = spec.bf16_ops;
  }
  weights[n].qk = nodes[n].products.qk;
  weights[n].pv = nodes[n].products.pv;
  return seconds;
}

void Engine::score_batch(std::span<const Window> windows, const MicroBatch& batch,
                         std::span<const Tensor* const> hidden, std::vector<std::vector<WindowScores>>& scores,
                         std::vector<double>& head_seconds) {
  std::vector<int32_t> rows, targets;
  std::vector<int64_t> offsets{0};  // of the windows in `rows`
  for (size_t w = 0; w < windows.size(); ++w) {
    const auto begin = static_cast<size_t>(windows[w].score_begin);
    for (size_t t = begin; t < begin + windows[w].scored(); ++t) {
      rows.push_back(static_cast<int32_t>(batch.batch.offsets[w] + static_cast<int64_t>(t) - 1));
      targets.push_back(windows[w].target(t));
    }
    offsets.push_back(static_cast<int64_t>(rows.size()));
  }
  const size_t variants = hidden.size();
  std::vector<Operand> operands;
  std::vector<std::vector<TokenScore>> batch_scores(variants, std::vector<TokenScore>(rows.size()));
  std::vector<HeadInput> inputs;
  operands.reserve(variants);
  for (size_t v = 0; v < variants; ++v) {
    const auto start = Clock::now();
    operands.push_back(forward_.head_operand(*hidden[v], rows, offsets, heads_[v]));
    head_seconds[v] += seconds_since(start);
    inputs.push_back({.hidden = &operands[v],
                      .weight = heads_[v].weight.get(),
                      .bias = forward_.head_bias(),
                      .logit_multiplier = model_.logit_multiplier,
                      .logit_softcap = model_.logit_softcap,
                      .bf16_ops = heads_[v].bf16_ops,
                      .scores = batch_scores[v],
                      .seconds = &head_seconds[v],
                      .kind = kind_});
  }
  backend_.score(inputs, targets);
  for (size_t v = 0; v < variants; ++v) {
    size_t at = 0;
    for (const Window& window : windows) {
      const size_t count = window.scored();
      const auto first = batch_scores[v].begin() + static_cast<std::ptrdiff_t>(at);
      scores[v].push_back({.tokens = {first, first + static_cast<std::ptrdiff_t>(count)}});
      at += count;
    }
  }
}

}  // namespace mxlm
