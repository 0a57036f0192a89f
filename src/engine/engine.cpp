#include "engine/engine.hpp"

#include <algorithm>
#include <unordered_map>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "engine/layer_errors.hpp"
#include "engine/walk.hpp"
#include "variants/spec_hash.hpp"

namespace mxlm {
namespace {

/// The number of real keys of each window, as in Batch::keys; empty if all keys are real.
std::vector<int32_t> real_keys(std::span<const Window> windows) {
  std::vector<int32_t> out;
  if (std::none_of(windows.begin(), windows.end(), [](const Window& w) { return w.keys > 0; })) return out;
  for (const Window& w : windows) out.push_back(w.keys > 0 ? w.keys : static_cast<int32_t>(w.tokens.size()));
  return out;
}

/// Collects spans of the backend's work while it runs. It asks for their durations only at the end, because asking
/// waits for the device.
class Timer {
 public:
  using Part = double VariantSeconds::*;
  /// Adds the time between the marks, times `factor`, to `part` of these variants.
  void add(Mark from, Mark to, Part part, std::span<const size_t> variants, double factor = 1) {
    spans_.push_back({std::move(from), std::move(to), part, {variants.begin(), variants.end()}, factor});
  }
  void resolve(Backend& backend, std::vector<VariantSeconds>& seconds) const {
    for (const Span& span : spans_) {
      const double took = backend.seconds(span.from, span.to) * span.factor;
      for (const size_t v : span.variants) seconds[v].*span.part += took;
    }
  }

 private:
  struct Span {
    Mark from, to;
    Part part;
    std::vector<size_t> variants;
    double factor;
  };
  std::vector<Span> spans_;
};

/// Settles the backend on destruction: a device may still write sums into the result, which must outlive them.
struct Settled {
  Backend& backend;
  explicit Settled(Backend& b) : backend(b) {}
  Settled(const Settled&) = delete;
  Settled& operator=(const Settled&) = delete;
  ~Settled() {
    try {
      backend.settle();
    } catch (const std::exception&) {
      // A shard that failed needs no sums.
    }
  }
};

}  // namespace

/// Runs one shard: walks the tree, then scores the last hidden state of every variant.
class Engine::Round final : public WalkVisitor {
 public:
  Round(Engine& engine, const std::function<void(double)>& on_work)
      : engine_(engine),
        job_(engine.job_),
        backend_(engine.backend_),
        forward_(engine.forward_),
        on_work_(on_work),
        settled_(engine.backend_) {
    result_.seconds.resize(job_.tree.leaf.size());
  }

  RoundResult run(std::span<const Plan::Range> batches) {
    const bool first = engine_.lm_heads_.empty();
    if (first) {
      for (const ProductSpec& product : job_.tree.lm_head) engine_.prefetch(job_.model.lm_head, product);
    }
    if (!forward_.steps().empty()) engine_.prefetch(0);
    WalkState state;
    for (const auto& [begin, end] : batches) {
      const auto windows = job_.windows.subspan(begin, end - begin);
      std::vector<std::span<const int32_t>> tokens;
      for (const Window& window : windows) tokens.emplace_back(window.tokens);
      state.add(forward_, tokens, real_keys(windows));
      result_.positions += state.batches.back().batch.rows();
    }
    job_.model.embedding.release();
    if (first) prepare_heads();

    walk(forward_, backend_, job_.tree, state, *this);
    for (size_t b = 0; b < batches.size(); ++b) {
      throw_if_interrupted();
      score_batch(job_.windows.subspan(batches[b].first, batches[b].second - batches[b].first), state, b);
      on_work_(static_cast<double>(state.batches[b].batch.rows()) * static_cast<double>(job_.tree.leaf.size()));
    }
    backend_.settle();
    for (size_t w = 0; w < result_.windows.size(); ++w) {
      for (size_t v = 0; v < job_.tree.leaf.size(); ++v) {
        result_.windows[w].layer_errors.push_back(LayerErrors::of_window(job_.tree, layer_errors_, v, w));
      }
    }
    timer_.resolve(backend_, result_.seconds);
    return std::move(result_);
  }

  void begin_step(const WalkStep& at) override {
    if (at.index + 1 < forward_.steps().size()) engine_.prefetch(at.index + 1);
    shared_.assign(at.step.prepared, {});
    for (const TreeNode& node : at.nodes) {
      for (size_t l = 0; l < shared_.size(); ++l) ++shared_[l][node.products.linears[l]].users;
    }
  }

  void begin_node(const WalkStep& /*at*/, const TreeNode& /*node*/) override { begin_ = backend_.mark(); }

  /// Prepares a weight just before the node runs, so that the weight is still in the caches, and holds it until the
  /// last node of the step has used it.
  std::shared_ptr<const PreparedWeight> weight(const WalkStep& at, const TreeNode& node, size_t linear) override {
    const LinearSpec& spec = *at.step.linears[linear];
    const ProductSpec& product = node.products.linears[linear];
    if (linear >= shared_.size()) return expert_weight(spec, product, node);
    const auto found = shared_[linear].find(product);
    SharedWeight& shared = found->second;
    if (!shared.prepared) shared.prepared = engine_.store_.get(spec, product).prepared;
    auto out = shared.prepared;
    if (--shared.users == 0) shared_[linear].erase(found);
    return out;
  }

  void begin_run(const TreeNode& node) override {
    Mark start = backend_.mark();
    timer_.add(std::move(begin_), start, &VariantSeconds::prepare, node.variants);
    begin_ = std::move(start);
  }

  void on_rows(int64_t finished) override { on_work_(static_cast<double>(finished)); }

  void end_node(const WalkStep& /*at*/, const TreeNode& node) override {
    timer_.add(std::move(begin_), backend_.mark(), &VariantSeconds::forward, node.variants);
  }

  void end_step(const WalkStep& at, const WalkState& state) override {
    for (const LinearSpec* linear : at.step.linears) engine_.forget(*linear);
    layer_errors_.push_back(LayerErrors::of_step(backend_, at.nodes, state.hidden, state.batches));
  }

 private:
  /// A prepared weight of a step, and the number of nodes that have yet to use it.
  struct SharedWeight {
    std::shared_ptr<const PreparedWeight> prepared;
    size_t users = 0;
  };

  /// Experts are prepared one at a time while the step runs, so their time moves from `forward` to `prepare`.
  std::shared_ptr<const PreparedWeight> expert_weight(const LinearSpec& linear, const ProductSpec& product,
                                                      const TreeNode& node) {
    const Mark from = backend_.mark();
    auto [weight, made] = engine_.store_.get(linear, product);
    if (made) {
      const Mark to = backend_.mark();
      timer_.add(from, to, &VariantSeconds::prepare, node.variants);
      timer_.add(from, to, &VariantSeconds::forward, node.variants, -1);
    }
    return weight;
  }

  void prepare_heads() {
    std::vector<StepLinear> heads;
    for (size_t v = 0; v < job_.tree.lm_head.size(); ++v) {
      const ProductSpec& product = job_.tree.lm_head[v];
      const Mark from = backend_.mark();
      auto [weight, made] = engine_.store_.get(job_.model.lm_head, product);
      if (made) timer_.add(from, backend_.mark(), &VariantSeconds::prepare, {&v, 1});
      heads.push_back({.weight = std::move(weight), .product = product});
    }
    engine_.lm_heads_ = std::move(heads);
    engine_.forget(job_.model.lm_head);
  }

  void score_batch(std::span<const Window> windows, const WalkState& state, size_t b) {
    std::vector<int32_t> rows, targets;
    std::vector<int64_t> offsets{0};  // where each window begins in `rows`
    for (size_t w = 0; w < windows.size(); ++w) {
      const auto begin = static_cast<size_t>(windows[w].score_begin);
      for (size_t t = begin; t < begin + windows[w].scored(); ++t) {
        rows.push_back(static_cast<int32_t>(state.batches[b].batch.offsets[w] + static_cast<int64_t>(t) - 1));
        targets.push_back(windows[w].target(t));
      }
      offsets.push_back(static_cast<int64_t>(rows.size()));
    }
    const size_t variants = job_.tree.leaf.size();
    std::vector<Operand> operands;
    std::vector<std::vector<TokenScore>> batch_scores(variants, std::vector<TokenScore>(rows.size()));
    std::vector<HeadJob> inputs;
    operands.reserve(variants);
    for (size_t v = 0; v < variants; ++v) {
      const StepLinear& head = engine_.lm_heads_[v];
      const Mark from = backend_.mark();
      operands.push_back(forward_.head_operand(state.hidden[job_.tree.leaf[v]][b], rows, offsets, head));
      timer_.add(from, backend_.mark(), &VariantSeconds::head, {&v, 1});
      HeadJob& input = inputs.emplace_back(forward_.head_job(operands[v], head));
      input.scores = batch_scores[v];
      input.seconds = &result_.seconds[v].head;
      input.kind = job_.kind;
      input.jensen_shannon = job_.jensen_shannon;
    }
    backend_.score(inputs, targets);
    for (size_t w = 0; w < windows.size(); ++w) {
      WindowResult& window = result_.windows.emplace_back();
      for (const auto& scores : batch_scores) {
        window.scores.push_back({.tokens = {scores.begin() + offsets[w], scores.begin() + offsets[w + 1]}});
      }
    }
  }

  Engine& engine_;
  const EngineJob& job_;
  Backend& backend_;
  const ForwardPass& forward_;
  const std::function<void(double)>& on_work_;
  RoundResult result_;
  std::vector<LayerErrors::StepSums> layer_errors_;  // [step], valid after settle()
  Settled settled_;                                  // destroyed before the two members above, which it protects
  Timer timer_;
  Mark begin_;  // where the current piece of work begins
  /// By the index of a Linear that is prepared before the step runs.
  std::vector<std::unordered_map<ProductSpec, SharedWeight, WeightsHash, SameWeights>> shared_;
};

Engine::Engine(const EngineJob& job, Backend& backend, const ForwardPass& forward)
    : job_(job), backend_(backend), forward_(forward), store_(backend, forward.dtype(), job.plan.kept) {}

Engine::~Engine() {
  for (const auto& [linear, source] : prefetched_) backend_.forget(source);
}

void Engine::prefetch(const LinearSpec& linear, const ProductSpec& product) {
  if (prefetched_.contains(&linear)) return;
  const auto source = store_.source_of(linear, product);
  if (!source) return;
  prefetched_.emplace(&linear, *source);
  backend_.prefetch(*source);
}

void Engine::prefetch(size_t step) {
  const auto& linears = forward_.steps()[step].linears;
  for (const LinearSpec* linear : linears) store_.will_need(*linear);
  // The order is the order in which nodes prepare weights. A later node with another spec uses the same source.
  for (const TreeNode& node : job_.tree.levels[step]) {
    for (size_t l = 0; l < linears.size(); ++l) prefetch(*linears[l], node.products.linears[l]);
  }
}

void Engine::forget(const LinearSpec& linear) {
  const auto found = prefetched_.find(&linear);
  if (found != prefetched_.end()) {
    backend_.forget(found->second);
    prefetched_.erase(found);
  }
  linear.weight.release();
}

RoundResult Engine::run_round(std::span<const Plan::Range> batches, const std::function<void(double)>& on_work) {
  return Round(*this, on_work).run(batches);
}

std::vector<std::map<std::string, std::string>> Engine::routes() const {
  std::vector<std::map<std::string, std::string>> out(job_.tree.leaf.size());
  const auto add = [&](size_t variant, const LinearSpec& linear, const ProductSpec& product) {
    if (const std::string route = store_.route(linear, product); !route.empty()) out[variant][linear.module] = route;
  };
  for (size_t s = 0; s < forward_.steps().size(); ++s) {
    const auto& linears = forward_.steps()[s].linears;
    for (const TreeNode& node : job_.tree.levels[s]) {
      for (const size_t v : node.variants) {
        for (size_t l = 0; l < linears.size(); ++l) add(v, *linears[l], node.products.linears[l]);
      }
    }
  }
  for (size_t v = 0; v < out.size(); ++v) add(v, job_.model.lm_head, job_.tree.lm_head[v]);
  return out;
}

}  // namespace mxlm
