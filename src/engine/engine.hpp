#pragma once

// The layer-major engine: for each step: for each variant: for each micro-batch of a round. A step's weights are read,
// moved and quantised once for every variant and token of the round, and the baseline and all variants meet at the head
// in the same moment.

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/plan.hpp"
#include "engine/round.hpp"
#include "engine/tree.hpp"
#include "engine/weight_store.hpp"
#include "model/forward.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

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
  class Round;
  /// Asks the backend to bring the weights of a step, which are on their way until `forget`.
  void prefetch(size_t step);
  void prefetch(const LinearSpec& linear, const ProductSpec& product);
  void forget(const LinearSpec& linear);

  const EngineJob job_;
  Backend& backend_;
  const ForwardPass& forward_;
  WeightStore store_;
  std::vector<StepLinear> lm_heads_;                    // [variant]
  std::map<const LinearSpec*, HostMatrix> prefetched_;  // not yet forgotten
};

}  // namespace mxlm
