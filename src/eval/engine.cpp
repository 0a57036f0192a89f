#include "eval/engine.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/interrupt.hpp"

namespace mxlm {
namespace {

/// Tells attention which keys of each window are real, if any are not.
void mark_padding(std::span<const Window> windows, Batch& batch) {
  if (std::none_of(windows.begin(), windows.end(), [](const Window& w) { return w.keys > 0; })) return;
  for (const Window& w : windows) batch.keys.push_back(w.keys > 0 ? w.keys : static_cast<int32_t>(w.tokens.size()));
}

}  // namespace

/// Collects stretches of the backend's work while it runs, and asks how long they took only at the end: asking waits.
class Engine::Timer {
 public:
  using Part = double VariantSeconds::*;
  /// The time between the marks counts `factor` times as `part` of these variants.
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

namespace {

/// Sums that a device still owes are written before the result that they belong to is gone.
struct Settled {
  Backend& backend;
  explicit Settled(Backend& b) : backend(b) {}
  Settled(const Settled&) = delete;
  Settled& operator=(const Settled&) = delete;
  ~Settled() {
    try {
      backend.settle();
    } catch (const std::exception&) {
      // A round that failed needs no sums.
    }
  }
};

}  // namespace

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

void Engine::prefetch(int64_t step) {
  const auto linears = forward_.step_linears(step);
  for (const LinearSpec* linear : linears) store_.will_need(*linear);
  // In the order in which nodes prepare them; a later node's other spec is made of the same source.
  for (const TreeNode& node : job_.tree.levels[static_cast<size_t>(step)]) {
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

void Engine::prepare_heads(Timer& timer) {
  std::vector<StepLinear> heads;
  for (size_t v = 0; v < job_.tree.head.size(); ++v) {
    const ProductSpec& product = job_.tree.head[v];
    const Mark from = backend_.mark();
    auto [weight, made] = store_.get(job_.model.head, product);
    if (made) timer.add(from, backend_.mark(), &VariantSeconds::prepare, {&v, 1});
    heads.push_back({.weight = std::move(weight), .spec = product});
  }
  heads_ = std::move(heads);
  forget(job_.model.head);
}

RoundResult Engine::run_round(std::span<const Plan::Range> batches, const std::function<void(double)>& on_work) {
  const VariantTree& tree = job_.tree;
  const size_t variants = tree.leaf.size();
  RoundResult result;
  result.seconds.resize(variants);
  std::vector<LayerErrors::StepSums> layer_errors;  // [step], not there until settle()
  const Settled settled{backend_};
  Timer timer;
  if (heads_.empty()) {
    for (const ProductSpec& product : tree.head) prefetch(job_.model.head, product);
  }
  if (forward_.steps() > 0) prefetch(0);

  std::vector<MicroBatch> micro_batches;
  std::vector<std::vector<Tensor>> hidden(1);  // [node][micro-batch]
  for (const auto& [begin, end] : batches) {
    std::vector<std::span<const int32_t>> tokens;
    for (size_t w = begin; w < end; ++w) tokens.emplace_back(job_.windows[w].tokens);
    micro_batches.push_back(forward_.make_batch(tokens));
    mark_padding(job_.windows.subspan(begin, end - begin), micro_batches.back().batch);
    hidden[0].push_back(forward_.embed(micro_batches.back()));
    result.positions += micro_batches.back().batch.rows();
  }
  job_.model.embedding.release();
  if (heads_.empty()) prepare_heads(timer);

  for (int64_t step = 0; step < forward_.steps(); ++step) {
    const auto& nodes = tree.levels[static_cast<size_t>(step)];
    const auto linears = forward_.step_linears(step);
    if (step + 1 < forward_.steps()) prefetch(step + 1);
    // Experts are prepared one at a time, while the step runs.
    std::vector<SharedWeights> shared(forward_.prepared_linears(step));
    for (const TreeNode& node : nodes) {
      for (size_t l = 0; l < shared.size(); ++l) ++shared[l][node.products.linears[l]].users;
    }

    // The last child of a parent may overwrite the parent's hidden state.
    std::vector<size_t> children(hidden.size(), 0);
    for (const TreeNode& node : nodes) ++children[node.parent];
    std::vector<std::vector<Tensor>> next(nodes.size());
    for (size_t n = 0; n < nodes.size(); ++n) {
      const std::span<const size_t> passing = nodes[n].variants;
      const Mark preparing = backend_.mark();
      const StepWeights weights = prepare_node(linears, nodes[n].products, shared);
      auto& parent = hidden[nodes[n].parent];
      const bool last = --children[nodes[n].parent] == 0;
      const ForwardPass::Fetch fetch = [&](size_t l) {
        const Mark from = backend_.mark();
        auto [weight, made] = store_.get(*linears[l], nodes[n].products.linears[l]);
        if (made) {
          const Mark to = backend_.mark();
          timer.add(from, to, &VariantSeconds::prepare, passing);
          timer.add(from, to, &VariantSeconds::forward, passing, -1);
        }
        return weight;
      };
      const Mark start = backend_.mark();
      timer.add(preparing, start, &VariantSeconds::prepare, passing);
      std::vector<const Tensor*> in;
      std::vector<Tensor*> out;
      next[n].reserve(parent.size());
      for (Tensor& state : parent) {
        in.push_back(&state);
        out.push_back(last ? &state
                           : &next[n].emplace_back(backend_.empty(forward_.dtype(), state.rows(), state.cols())));
      }
      forward_.run(step, weights, fetch, micro_batches, in, out, [&](int64_t rows) {
        throw_if_interrupted();
        on_work(static_cast<double>(rows));
      });
      timer.add(start, backend_.mark(), &VariantSeconds::forward, passing);
      if (last) next[n] = std::move(parent);
    }
    for (const LinearSpec* linear : linears) forget(*linear);
    hidden = std::move(next);
    layer_errors.push_back(LayerErrors::of_step(backend_, nodes, hidden, micro_batches));
  }

  for (size_t b = 0; b < batches.size(); ++b) {
    throw_if_interrupted();
    std::vector<const Tensor*> states;
    for (size_t v = 0; v < variants; ++v) states.push_back(&hidden[tree.leaf[v]][b]);
    score_batch(job_.windows.subspan(batches[b].first, batches[b].second - batches[b].first), micro_batches[b], states,
                timer, result);
    on_work(static_cast<double>(micro_batches[b].batch.rows()) * static_cast<double>(variants));
  }
  backend_.settle();
  for (size_t w = 0; w < result.windows.size(); ++w) {
    for (size_t v = 0; v < variants; ++v) {
      result.windows[w].layer_errors.push_back(LayerErrors::of_window(tree, layer_errors, v, w));
    }
  }
  timer.resolve(backend_, result.seconds);
  return result;
}

StepWeights Engine::prepare_node(std::span<const LinearSpec* const> linears, const StepProducts& products,
                                 std::vector<SharedWeights>& shared) {
  StepWeights weights{.linears = std::vector<StepLinear>(linears.size()), .qk = products.qk, .pv = products.pv};
  for (size_t l = 0; l < linears.size(); ++l) {
    throw_if_interrupted();
    const ProductSpec& spec = products.linears[l];
    StepLinear& linear = weights.linears[l];
    if (l < shared.size()) {
      const auto found = shared[l].find(spec);
      SharedWeight& weight = found->second;
      if (!weight.prepared) weight.prepared = store_.get(*linears[l], spec).prepared;
      linear.weight = weight.prepared;
      if (--weight.users == 0) shared[l].erase(found);
    }
    linear.spec = spec;
  }
  return weights;
}

void Engine::score_batch(std::span<const Window> windows, const MicroBatch& batch,
                         std::span<const Tensor* const> hidden, Timer& timer, RoundResult& result) {
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
  std::vector<HeadJob> inputs;
  operands.reserve(variants);
  for (size_t v = 0; v < variants; ++v) {
    const Mark from = backend_.mark();
    operands.push_back(forward_.head_operand(*hidden[v], rows, offsets, heads_[v]));
    timer.add(from, backend_.mark(), &VariantSeconds::head, {&v, 1});
    inputs.push_back({.hidden = &operands[v],
                      .weight = heads_[v].weight.get(),
                      .bias = forward_.head_bias(),
                      .logit_multiplier = job_.model.logit_multiplier,
                      .logit_softcap = job_.model.logit_softcap,
                      .arithmetic = heads_[v].spec.arithmetic,
                      .scores = batch_scores[v],
                      .seconds = &result.seconds[v].head,
                      .kind = job_.kind,
                      .jensen_shannon = job_.jensen_shannon});
  }
  backend_.score(inputs, targets);
  for (size_t w = 0; w < windows.size(); ++w) {
    WindowResult& window = result.windows.emplace_back();
    for (const auto& scores : batch_scores) {
      window.scores.push_back({.tokens = {scores.begin() + offsets[w], scores.begin() + offsets[w + 1]}});
    }
  }
}

std::vector<std::map<std::string, std::string>> Engine::routes() const {
  std::vector<std::map<std::string, std::string>> out(job_.tree.leaf.size());
  const auto add = [&](size_t variant, const LinearSpec& linear, const ProductSpec& product) {
    if (const std::string route = store_.route(linear, product); !route.empty()) out[variant][linear.module] = route;
  };
  for (int64_t step = 0; step < forward_.steps(); ++step) {
    const auto linears = forward_.step_linears(step);
    for (const TreeNode& node : job_.tree.levels[static_cast<size_t>(step)]) {
      for (const size_t v : node.variants) {
        for (size_t l = 0; l < linears.size(); ++l) add(v, *linears[l], node.products.linears[l]);
      }
    }
  }
  for (size_t v = 0; v < out.size(); ++v) add(v, job_.model.head, job_.tree.head[v]);
  return out;
}

}  // namespace mxlm
