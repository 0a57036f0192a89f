#pragma once

// The engine, which runs one shard after another. Its loops are layer-major: steps outside, then variants, then the
// micro-batches of the shard. So a step's weights are read, moved and quantised once for all variants and tokens of the
// shard, and the logits of the baseline and of all variants are there at the same time to be compared.

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

/// What a run computes. It is the same for every worker. Everything is borrowed.
struct EngineJob {
  const ModelSpec& model;
  const VariantTree& tree;
  const Plan& plan;
  std::span<const Window> windows;
  ScoreKind kind = ScoreKind::next_token;
  bool jensen_shannon = false;  // see HeadJob::jensen_shannon
};

/// Runs shards on one backend, one after the other, and keeps weights between shards as the plan says. One thread uses
/// it.
class Engine {
 public:
  /// Everything is borrowed and must outlive the engine.
  Engine(const EngineJob& job, Backend& backend, const ForwardPass& forward);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Runs a shard: the windows of `batches`. Calls `on_work` after each piece of work with its size, which is nodes of
  /// the tree times tokens; the LM head of a variant counts as a node. Throws Interrupted between pieces of work, and
  /// Error. After OutOfDeviceMemory the caller may run the shard again.
  RoundResult run_round(std::span<const Plan::Range> batches, const std::function<void(double)>& on_work);

  /// [variant] -> module name of a Linear -> PreparedWeight::route of the weight that the Linear used.
  [[nodiscard]] std::vector<std::map<std::string, std::string>> routes() const;

 private:
  class Round;
  /// Asks the backend to start moving the weights of a step to the device. `forget` ends that.
  void prefetch(size_t step);
  void prefetch(const LinearSpec& linear, const ProductSpec& product);
  void forget(const LinearSpec& linear);

  const EngineJob job_;
  Backend& backend_;
  const ForwardPass& forward_;
  WeightStore store_;
  std::vector<StepLinear> lm_heads_;                    // [variant]
  std::map<const LinearSpec*, HostMatrix> prefetched_;  // weights without `forget` so far
};

}  // namespace mxlm
