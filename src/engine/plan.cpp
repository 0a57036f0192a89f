#include "engine/plan.hpp"

#include <algorithm>
#include <unordered_set>

#include "base/error.hpp"
#include "mx/format.hpp"
#include "variants/spec_hash.hpp"

namespace mxlm {
namespace {

// This many rows are enough for matrix products to run at full speed, and few enough for a step's activations to stay
// in the caches.
constexpr int64_t kMicroBatchTokens = 2048;
// The same for a GPU, whose products need more rows and whose memory has room for more.
constexpr int64_t kDeviceMicroBatchTokens = 8192;
// A run that stops loses its unfinished shards, so a shard has about this much arithmetic and at most this many tokens.
constexpr double kRoundFlops = 2.4e13;
constexpr int64_t kRoundTokens = 65536;
// Windows of a few tokens cost more than their number of tokens suggests, so the number of windows is bounded, too.
constexpr size_t kRoundWindows = 4096;
// About a minute of work for a GPU.
constexpr double kDeviceRoundFlops = 1e16;
constexpr int64_t kDeviceRoundTokens = 131072;
// A device keeps weights only if shards of at least this many tokens fit beside them: with fewer tokens the kernels do
// not run at full speed.
constexpr int64_t kDeviceRoundTokensWorthKeeping = 16384;
// Shards for each worker, if there are enough windows. With several shards each, workers end at about the same time.
constexpr int64_t kRoundsAWorker = 4;
// A device keeps rows in multiples of this many elements.
constexpr int64_t kDeviceRowStep = 64;
// Staging may take one part in this many of a device's limit.
constexpr uint64_t kStagingShare = 6;
// The table of embeddings stays on a device if it takes at most one part in this many of the limit.
constexpr uint64_t kTableShare = 8;
// Keeping weights saves time beyond this many shards. Measured: encoding a weight takes 4 times as long as quantising
// it for one shard, and decoding takes 0.7 times as long.
constexpr size_t kRoundsWorthKeeping = 12;
// Weights are kept only while the estimate is below this share of the limit.
constexpr double kResidentShare = 0.7;

/// Distinct prepared weights of one Linear: specs with the same weight format and arithmetic count once.
using WeightSet = std::unordered_set<ProductSpec, WeightsHash, SameWeights>;

template <typename Bytes>
uint64_t bytes_of_step(std::span<const LinearSpec* const> linears, const std::vector<TreeNode>& nodes, Bytes bytes) {
  uint64_t sum = 0;
  for (size_t l = 0; l < linears.size(); ++l) {
    WeightSet seen;
    for (const TreeNode& node : nodes) {
      const ProductSpec& spec = node.products.linears[l];
      if (seen.insert(spec).second) sum += bytes(*linears[l], spec.weights);
    }
  }
  return sum;
}

/// The largest number of bytes in memory at once while the nodes of a step run in order. A prepared weight is in memory
/// from its first node to its last node.
template <typename Bytes>
uint64_t live_bytes_of_step(std::span<const LinearSpec* const> linears, const std::vector<TreeNode>& nodes,
                            Bytes bytes) {
  // Bytes of the weights whose first (last) user is a node.
  std::vector<uint64_t> begins(nodes.size(), 0), ends(nodes.size(), 0);
  for (size_t l = 0; l < linears.size(); ++l) {
    WeightSet seen;
    for (size_t n = 0; n < nodes.size(); ++n) {
      const ProductSpec& spec = nodes[n].products.linears[l];
      if (seen.insert(spec).second) begins[n] += bytes(*linears[l], spec.weights);
    }
    for (size_t n = nodes.size(); n-- > 0;) {
      const ProductSpec& spec = nodes[n].products.linears[l];
      if (seen.erase(spec) > 0) ends[n] += bytes(*linears[l], spec.weights);
    }
  }
  uint64_t most = 0, alive = 0;
  for (size_t n = 0; n < nodes.size(); ++n) {
    alive += begins[n];
    most = std::max(most, alive);
    alive -= ends[n];
  }
  return most;
}

}  // namespace

uint64_t kept_weight_bytes(int64_t elements, int64_t row, const OperandSpec& spec, DType dtype) {
  if (!spec) return static_cast<uint64_t>(elements) * dtype_size(dtype);
  const auto rows = static_cast<uint64_t>(elements / std::max<int64_t>(row, 1));
  return (mx::storage_bits(*spec, rows, static_cast<uint64_t>(row)) + 7) / 8;
}

namespace {

/// Makes a plan. The members hold the inputs and what the methods have measured so far.
struct Planner {
  const ModelSpec& model;
  DType compute;
  const VariantTree& tree;
  std::span<const Window> windows;
  const PlanOptions& options;

  std::vector<Step> steps = steps_of(model);
  Plan plan = {};
  uint64_t prepared_weights = 0, code_weights = 0;
  int64_t widest = 0;  // elements of activations for each token, in the widest step
  bool mixture = false;
  std::vector<Plan::Range> batches = {};
  std::vector<int64_t> batch_tokens = {};
  int64_t largest = 0;          // tokens of the largest micro-batch
  uint64_t hidden_a_token = 0;  // bytes

  [[nodiscard]] bool on_device() const { return options.device_limit > 0; }

  [[nodiscard]] uint64_t prepared_bytes(const LinearSpec& linear, const OperandSpec& spec) const {
    const bool bf16 =
        spec ? mx::decodes_exactly_to_bf16(*spec) : compute == DType::bf16 || linear.weight.matrix.type == DType::bf16;
    if (!on_device()) return static_cast<uint64_t>(linear.parameters()) * (bf16 ? 2 : 4);
    // A device holds values that need float32 as three bfloat16 parts.
    const int64_t row = (linear.inputs() + kDeviceRowStep - 1) / kDeviceRowStep * kDeviceRowStep;
    return static_cast<uint64_t>(linear.outputs() * row) * (bf16 ? 2 : 6);
  }
  [[nodiscard]] uint64_t code_bytes(const LinearSpec& linear, const OperandSpec& spec) const {
    if (!spec || !mx::keeps_codes(*spec)) return prepared_bytes(linear, spec);
    mx::Format in_bytes = *spec;
    in_bytes.scale_bits = 8;  // a kept scale takes a byte, even if it has fewer bits
    return kept_weight_bytes(linear.parameters(), linear.weight.matrix.cols, in_bytes, DType::bf16);
  }

  /// Elements of a step's activations for each token.
  [[nodiscard]] int64_t activations(std::span<const LinearSpec* const> linears) const {
    int64_t in = 0, out = 0;
    for (const LinearSpec* linear : linears) {
      in += linear->inputs();
      out += linear->outputs();
    }
    // A device holds operands in the specs of all variants.
    if (on_device() || linears.empty()) return in + out;
    // A CPU holds the normed state, the outputs of all Linears except the last (which adds to the hidden state), and
    // the input of the last.
    return linears.front()->inputs() + out - linears.back()->outputs() + linears.back()->inputs();
  }

  void measure_weights() {
    const auto prepared_size = [this](const LinearSpec& l, const OperandSpec& s) { return prepared_bytes(l, s); };
    const auto code_size = [this](const LinearSpec& l, const OperandSpec& s) { return code_bytes(l, s); };
    uint64_t last_source = 0, largest_source = 0;
    for (size_t s = 0; s < steps.size(); ++s) {
      const Step& step = steps[s];
      const std::span<const LinearSpec* const> linears(step.linears);
      const auto& nodes = tree.levels[s];
      const size_t prepared = step.prepared;
      uint64_t live = live_bytes_of_step(linears.first(prepared), nodes, prepared_size);
      if (const size_t a_time = step.linears_an_expert; a_time > 0) {
        // Memory holds one expert of one variant at a time, beside the routed rows.
        uint64_t most = 0;
        for (size_t l = prepared; l < linears.size(); l += a_time) {
          for (const TreeNode& node : nodes) {
            uint64_t sum = 0;
            for (size_t i = l; i < l + a_time; ++i) {
              sum += prepared_bytes(*linears[i], node.products.linears[i].weights);
            }
            most = std::max(most, sum);
          }
        }
        live += most;
        mixture = true;
      }
      plan.step_weights = std::max(plan.step_weights, live);
      code_weights += bytes_of_step(linears, nodes, code_size);
      prepared_weights += bytes_of_step(linears, nodes, prepared_size);
      const size_t alive = std::min(linears.size(), prepared + step.linears_an_expert);
      widest = std::max(widest, activations(linears.first(alive)));
      uint64_t source = 0;
      for (const LinearSpec* linear : linears) {
        source += static_cast<uint64_t>(linear->parameters()) * dtype_size(linear->weight.matrix.type);
      }
      plan.source_bytes += source;
      // The sources of a step and of the next step are in memory at the same time.
      plan.staging = std::max(plan.staging, source + last_source);
      last_source = source;
      largest_source = std::max(largest_source, source);
    }
    plan.staging = on_device() ? std::min(plan.staging, options.device_limit / kStagingShare) : largest_source;
    WeightSet heads;
    for (const ProductSpec& head : tree.lm_head) {
      if (heads.insert(head).second) plan.head_weights += prepared_bytes(model.lm_head, head.weights);
    }
    const HostMatrix& table = model.embedding.matrix;
    const uint64_t table_bytes = static_cast<uint64_t>(table.rows * table.cols) * dtype_size(table.type);
    if (!on_device()) plan.head_source = model.lm_head.weight.entry.size;
    if (on_device() && table_bytes <= options.device_limit / kTableShare) plan.head_weights += table_bytes;
  }

  void cut_micro_batches() {
    int64_t most = on_device() ? kDeviceMicroBatchTokens : kMicroBatchTokens;
    if (options.workers > 1) {
      int64_t all = 0;
      for (const Window& window : windows) all += static_cast<int64_t>(window.tokens.size());
      most = std::min(most, all / static_cast<int64_t>(options.workers));
    }
    if (options.round_tokens > 0) most = std::min(most, options.round_tokens);
    const auto known = [this](size_t w) { return !options.known.empty() && options.known[w] != 0; };
    for (size_t begin = 0; begin < windows.size();) {
      if (known(begin)) {
        ++begin;
        continue;
      }
      size_t end = begin;
      int64_t tokens = 0;
      do {
        tokens += static_cast<int64_t>(windows[end].tokens.size());
        ++end;
      } while (end < windows.size() && !known(end) &&
               (options.batch_windows > 0 ? static_cast<int64_t>(end - begin) < options.batch_windows
                                          : tokens + static_cast<int64_t>(windows[end].tokens.size()) <= most));
      batches.emplace_back(begin, end);
      batch_tokens.push_back(tokens);
      begin = end;
    }
    largest = batch_tokens.empty() ? 0 : *std::max_element(batch_tokens.begin(), batch_tokens.end());
    const auto size = static_cast<uint64_t>(dtype_size(compute));
    // In a float32 run, operands on a device are three bfloat16 parts.
    const uint64_t wide = on_device() && compute == DType::f32 ? 6 : size;
    const uint64_t step_scratch = static_cast<uint64_t>(largest * widest) * wide;
    const uint64_t head_scratch = static_cast<uint64_t>(largest * model.hidden) * wide * tree.lm_head.size();
    // In host memory the step and the LM head use the scratch one after the other, and a buffer may be a quarter larger
    // than its content.
    plan.scratch = on_device() ? step_scratch + head_scratch : std::max(step_scratch, head_scratch) / 4 * 5;
    int64_t scored = 0;
    for (const Window& window : windows) scored += static_cast<int64_t>(window.scored());
    plan.scores = static_cast<uint64_t>(scored) * sizeof(TokenScore) * tree.lm_head.size();
    // A mixture keeps the normed state and the float32 sum of its experts for the whole shard.
    hidden_a_token = static_cast<uint64_t>(model.hidden) * (size * tree.width() + (mixture ? size + sizeof(float) : 0));
  }

  void count_arithmetic() {
    for (size_t s = 0; s < steps.size(); ++s) {
      double step_flops = 0;
      const MlpSpec& mlp = model.layers[steps[s].layer].mlp;
      for (const LinearSpec* linear : steps[s].linears) {
        step_flops += 2.0 * static_cast<double>(linear->parameters());
      }
      if (steps[s].linears_an_expert > 0) {
        step_flops *= static_cast<double>(mlp.routing.top_k) / static_cast<double>(mlp.experts.size());
      }
      plan.flops_a_token += step_flops * static_cast<double>(tree.levels[s].size());
    }
    plan.flops_a_token +=
        2.0 * static_cast<double>(model.lm_head.parameters()) * static_cast<double>(tree.lm_head.size());
  }

  /// Cuts shards of at most this many tokens and kRoundWindows windows, but at least one micro-batch, and estimates
  /// their hidden states.
  void cut_rounds(int64_t round_tokens) {
    if (options.round_tokens > 0) round_tokens = std::min(round_tokens, options.round_tokens);
    round_tokens = std::max(round_tokens, largest);
    plan.rounds.clear();
    int64_t tokens = 0, most = 0;
    size_t count = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      const size_t more = batches[b].second - batches[b].first;
      if (plan.rounds.empty() || tokens + batch_tokens[b] > round_tokens || count + more > kRoundWindows) {
        plan.rounds.emplace_back();
        tokens = 0;
        count = 0;
      }
      plan.rounds.back().push_back(batches[b]);
      tokens += batch_tokens[b];
      count += more;
      most = std::max(most, tokens);
    }
    plan.hidden_states = hidden_a_token * static_cast<uint64_t>(most);
  }

  /// The number of tokens of a shard with which every worker gets `rounds` shards.
  [[nodiscard]] int64_t tokens_for_workers(int64_t rounds) const {
    int64_t all = 0;
    for (const int64_t tokens : batch_tokens) all += tokens;
    if (options.workers <= 1) return all;
    return std::max<int64_t>(1, all / (static_cast<int64_t>(options.workers) * rounds));
  }

  void check(uint64_t needed, uint64_t limit) const {
    if (needed <= limit) return;
    fail(
        "The run needs about {} MB for its largest layer, head and one micro-batch, but only {} MB{} may be used; give "
        "fewer variants, a smaller --batch-size or --context, or more memory.",
        needed >> 20, limit >> 20, on_device() ? " of the GPU's memory" : "");
  }

  void plan_host() {
    plan.limit = options.memory_limit;
    plan.base = options.memory_in_use;
    // A tenth stays free for the error of the estimate and for pages of files.
    const uint64_t usable = plan.limit - plan.limit / 10;
    const uint64_t fixed = plan.total();
    check(fixed + hidden_a_token * static_cast<uint64_t>(largest), usable);
    int64_t round_tokens =
        std::clamp(static_cast<int64_t>(kRoundFlops / std::max(plan.flops_a_token, 1.0)), int64_t{1}, kRoundTokens);
    round_tokens =
        std::min(round_tokens, static_cast<int64_t>((usable - fixed) / 2 / std::max<uint64_t>(hidden_a_token, 1)));
    if (options.workers > 1) round_tokens = std::min(round_tokens, tokens_for_workers(kRoundsAWorker));
    cut_rounds(round_tokens);

    plan.kept_weights = code_weights;
    uint64_t on_disk = 0;
    for (const LinearSpec* linear : model.linears()) on_disk += linear->weight.entry.size;
    const bool uncached = on_disk > plan.limit / 2;
    const size_t rounds = plan.rounds.size();
    if (rounds > 1 && (options.keep == KeepWeights::always ||
                       (options.keep == KeepWeights::automatic && (rounds > kRoundsWorthKeeping || uncached)))) {
      plan.kept = KeptForm::codes;
    }
    if (plan.resident() && static_cast<double>(plan.total()) > kResidentShare * static_cast<double>(plan.limit)) {
      plan.kept = KeptForm::nothing;
    }
  }

  void plan_device() {
    plan.on_device = true;
    plan.limit = options.device_limit;
    if (plan.scores > options.memory_limit) {
      fail("The scores of the run take {} MB, but only {} MB of memory may be used; give fewer variants or windows.",
           plan.scores >> 20, options.memory_limit >> 20);
    }
    // A tenth stays free for fragmentation and for the memory of libraries.
    const uint64_t usable = plan.limit - plan.limit / 10;
    const uint64_t fixed = plan.head_weights + plan.scratch + plan.staging;
    check(fixed + plan.step_weights + hidden_a_token * static_cast<uint64_t>(largest), usable);
    const int64_t most_tokens = std::clamp(static_cast<int64_t>(kDeviceRoundFlops / std::max(plan.flops_a_token, 1.0)),
                                           int64_t{1}, kDeviceRoundTokens);
    struct Form {
      KeptForm form;
      uint64_t kept, bytes;  // bytes: all memory for weights in this form
    };
    for (const Form& form : {Form{KeptForm::prepared, prepared_weights, prepared_weights},
                             Form{KeptForm::codes, code_weights, code_weights + plan.step_weights},
                             Form{KeptForm::nothing, code_weights, plan.step_weights}}) {
      const bool keeps = form.form != KeptForm::nothing;
      if (keeps && options.keep == KeepWeights::never) continue;
      int64_t wanted = std::min(most_tokens, tokens_for_workers(keeps ? kRoundsAWorker : 1));
      if (options.round_tokens > 0) wanted = std::min(wanted, options.round_tokens);
      const int64_t least = keeps ? std::max(largest, std::min(wanted, kDeviceRoundTokensWorthKeeping)) : largest;
      if (fixed + form.bytes + hidden_a_token * static_cast<uint64_t>(least) > usable) continue;
      const uint64_t room = (usable - fixed - form.bytes) / std::max<uint64_t>(hidden_a_token, 1);
      cut_rounds(static_cast<int64_t>(std::min(static_cast<uint64_t>(wanted), room)));
      plan.kept_weights = form.kept;
      // A single shard reads every weight once, so keeping weights saves nothing.
      if (keeps && plan.rounds.size() <= 1) continue;
      plan.kept = form.form;
      return;
    }
  }
};

}  // namespace

Plan make_plan(const ModelSpec& model, DType compute, const VariantTree& tree, std::span<const Window> windows,
               const PlanOptions& options) {
  Planner planner{.model = model, .compute = compute, .tree = tree, .windows = windows, .options = options};
  planner.measure_weights();
  planner.cut_micro_batches();
  planner.count_arithmetic();
  if (planner.on_device()) {
    planner.plan_device();
  } else {
    planner.plan_host();
  }
  return std::move(planner.plan);
}

}  // namespace mxlm
