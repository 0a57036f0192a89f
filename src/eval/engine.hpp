#pragma once

// The layer-major engine: for each round of windows: for each step: for each variant: for each micro-batch. A step's
// weights are read, moved and quantised once for every variant and token of the round, and the baseline and all
// variants meet at the head in the same moment.

#include <functional>
#include <span>
#include <vector>

#include "eval/layer_errors.hpp"
#include "eval/plan.hpp"
#include "eval/statistics.hpp"
#include "eval/tree.hpp"
#include "eval/weight_store.hpp"

namespace mxlm {

/// Work done so far, in positions x variants through the whole model.
struct Progress {
  double done = 0, total = 0;
  double seconds = 0;
  size_t round = 0, rounds = 0;
};

struct EngineResult {
  /// [variant][window], windows of finished rounds only; variant 0 is the baseline.
  std::vector<std::vector<WindowScores>> scores;
  bool complete = true;   // false after Ctrl-C
  int64_t positions = 0;  // through the model, of finished rounds
  /// [variant][step]: of the hidden state against the baseline's.
  std::vector<std::vector<ErrorSums>> layer_errors;
  /// Seconds by variant: own products plus the prefix it shares; preparing its weights; its part of the head.
  std::vector<double> forward_seconds, prepare_seconds, head_seconds;
};

class Engine {
 public:
  /// Everything is borrowed and must outlive the engine.
  Engine(const ModelSpec& model, Backend& backend, const ForwardPass& forward, const VariantTree& tree,
         const Plan& plan, ScoreKind kind = ScoreKind::next_token);

  /// Runs all rounds. An interrupt ends the run after the micro-batch at hand and keeps the finished rounds.
  EngineResult run(std::span<const Window> windows, const std::function<void(const Progress&)>& on_progress);

 private:
  void run_round(std::span<const Window> windows, const std::vector<Plan::Range>& batches, EngineResult& result,
                 const std::function<void(double)>& on_work);
  /// Prepares what node `n` of a step needs, just before it runs so that it is still in the caches, and hands what
  /// later nodes share on to them. Returns the seconds it took.
  /// Only the first `prepared` Linears are; the rest, experts, are fetched while the step runs.
  double prepare_node(std::span<const LinearSpec* const> linears, size_t prepared, const std::vector<TreeNode>& nodes,
                      size_t n, std::vector<StepWeights>& weights);
  void score_batch(std::span<const Window> windows, const MicroBatch& batch, std::span<const Tensor* const> hidden,
                   std::vector<std::vector<WindowScores>>& scores, std::vector<double>& head_seconds);

  const ModelSpec& model_;
  Backend& backend_;
  const ForwardPass& forward_;
  const VariantTree& tree_;
  const Plan& plan_;
  const ScoreKind kind_;
  WeightStore store_;
  LayerErrors layer_errors_;
  std::vector<StepLinear> heads_;  // [variant]
};

}  // namespace mxlm
