#pragma once

// The layer-major engine: for each step: for each variant: for each micro-batch of a round. A step's weights are read,
// moved and quantised once for every variant and token of the round, and the baseline and all variants meet at the head
// in the same moment.

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "eval/layer_errors.hpp"
#include "eval/plan.hpp"
#include "eval/spec_hash.hpp"
#include "eval/statistics.hpp"
#include "eval/tree.hpp"
#include "eval/weight_store.hpp"

namespace mxlm {

/// Of one variant: its own products plus the prefix it shares; preparing its weights; its part of the head.
struct VariantSeconds {
  double forward = 0, prepare = 0, head = 0;
  VariantSeconds& operator+=(const VariantSeconds& more) {
    forward += more.forward;
    prepare += more.prepare;
    head += more.head;
    return *this;
  }
};

/// What was computed of one window. Depends on the window, the variant and what computed it alone, so that windows of
/// several runs may stand beside each other.
struct WindowResult {
  std::vector<WindowScores> scores;                  // [variant]
  std::vector<std::vector<ErrorSums>> layer_errors;  // [variant][step]: see LayerErrors::of_window
};

/// What a finished round leaves.
struct RoundResult {
  std::vector<WindowResult> windows;    // in the order of its micro-batches
  std::vector<VariantSeconds> seconds;  // [variant]
  int64_t positions = 0;                // through the model
};

/// What is computed, for every worker the same. Everything is borrowed.
struct EngineJob {
  const ModelSpec& model;
  const VariantTree& tree;
  const Plan& plan;
  std::span<const Window> windows;
  ScoreKind kind = ScoreKind::next_token;
  bool jensen_shannon = false;  // as HeadJob::jensen_shannon
};

/// Runs rounds on one backend, one after the other, and keeps between them what the plan says. Used by one thread.
class Engine {
 public:
  /// Everything is borrowed and must outlive the engine.
  Engine(const EngineJob& job, Backend& backend, const ForwardPass& forward);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Runs the windows of `batches`. `on_work` is told of each piece of work, in nodes of the tree times tokens, the
  /// head of a variant being a node. Throws Interrupted between pieces, and Error; after OutOfDeviceMemory a round may
  /// be run again.
  RoundResult run_round(std::span<const Plan::Range> batches, const std::function<void(double)>& on_work);

  /// [variant] -> module of a Linear -> PreparedWeight::route of the weight that it multiplied with.
  [[nodiscard]] std::vector<std::map<std::string, std::string>> routes() const;

 private:
  class Timer;
  void prepare_heads(Timer& timer);
  /// A prepared weight of a step and how many of its nodes have still to use it.
  struct SharedWeight {
    std::shared_ptr<const PreparedWeight> prepared;
    size_t users = 0;
  };
  using SharedWeights = std::unordered_map<ProductSpec, SharedWeight, WeightsHash, SameWeights>;
  /// Prepares what a node needs, just before it runs so that it is still in the caches. `shared` has the weights of
  /// each Linear that is prepared before the step runs, until their last user.
  StepWeights prepare_node(std::span<const LinearSpec* const> linears, const StepProducts& products,
                           std::vector<SharedWeights>& shared);
  void score_batch(std::span<const Window> windows, const MicroBatch& batch, std::span<const Tensor* const> hidden,
                   Timer& timer, RoundResult& result);
  /// Asks the backend to bring the weights of a step, which are on their way until `forget`.
  void prefetch(int64_t step);
  void prefetch(const LinearSpec& linear, const ProductSpec& product);
  void forget(const LinearSpec& linear);

  const EngineJob job_;
  Backend& backend_;
  const ForwardPass& forward_;
  WeightStore store_;
  std::vector<StepLinear> heads_;                       // [variant]
  std::map<const LinearSpec*, HostMatrix> prefetched_;  // not yet forgotten
};

}  // namespace mxlm
