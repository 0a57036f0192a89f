#include "backend/cuda/sdpa.hpp"

#include <cassert>
#include <limits>
#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

#if defined(MXLM_WITH_CUDNN)

// Its plans are not serialised, so that its JSON library is not needed.
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include "base/error.hpp"

namespace mxlm::cuda {
namespace {

namespace fe = cudnn_frontend;

// Names of the tensors in a graph.
enum Uid : int64_t { kQ = 1, kK, kV, kOut };

/// What a plan is made for, but for the number of windows: everything but the pointers.
using Shape =
    std::tuple<int64_t, int, int, int, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, int64_t>;

Shape shape_of(const SdpaProblem& p) {
  return {p.length, p.heads, p.kv_heads, p.head_dim, p.q_row, p.q_head,        p.k_row,
          p.k_head, p.v_row, p.v_head,   p.out_row,  p.scale, p.sliding_window};
}

bool is_aligned(const SdpaProblem& p) {
  constexpr int64_t kElements = 8;  // 16 bytes
  for (const int64_t stride : {p.q_row, p.q_head, p.k_row, p.k_head, p.v_row, p.v_head, p.out_row}) {
    if (stride % kElements != 0) return false;
  }
  for (const void* data : {p.q, p.k, p.v, static_cast<const void*>(p.out)}) {
    if (reinterpret_cast<uintptr_t>(data) % 16 != 0) return false;
  }
  return true;
}

/// An engine and its settings: with the same ones, a window's sums are done in the same order whatever the number of
/// windows.
struct Recipe {
  int64_t engine = 0;
  std::unordered_map<fe::KnobType_t, int64_t> knobs;
};

struct Plan {
  std::unique_ptr<fe::graph::Graph> graph;
  int64_t workspace = 0;
};

/// The operation, ready to be given execution plans; null if cuDNN refuses it.
std::unique_ptr<fe::graph::Graph> describe(const SdpaProblem& p, int64_t windows, cudnnHandle_t handle) {
  auto graph = std::make_unique<fe::graph::Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const int64_t d = p.head_dim;
  const auto tensor = [&](const char* name, int64_t uid, int64_t heads, int64_t row, int64_t head) {
    return graph->tensor(fe::graph::Tensor_attributes()
                             .set_name(name)
                             .set_uid(uid)
                             .set_data_type(fe::DataType_t::BFLOAT16)
                             .set_dim({windows, heads, p.length, d})
                             .set_stride({p.length * row, head, row, 1}));
  };
  auto q = tensor("q", kQ, p.heads, p.q_row, p.q_head);
  auto k = tensor("k", kK, p.kv_heads, p.k_row, p.k_head);
  auto v = tensor("v", kV, p.kv_heads, p.v_row, p.v_head);
  auto options = fe::graph::SDPA_attributes();
  options.set_name("sdpa")
      .set_generate_stats(false)
      .set_attn_scale(p.scale)
      .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0);
  // Keeps the keys k with k + bound > q.
  if (p.sliding_window != 0) options.set_diagonal_band_left_bound(static_cast<int>(p.sliding_window));
  auto outputs = graph->sdpa(q, k, v, options);
  outputs[0]
      ->set_output(true)
      .set_uid(kOut)
      .set_data_type(fe::DataType_t::BFLOAT16)
      .set_dim({windows, p.heads, p.length, d})
      .set_stride({p.length * p.out_row, d, p.out_row, 1});
  if (graph->validate().is_bad() || graph->build_operation_graph(handle).is_bad()) return nullptr;
  return graph;
}

/// The plan of a recipe; an empty one if it cannot be made.
Plan build(const SdpaProblem& p, int64_t windows, const Recipe& recipe, cudnnHandle_t handle) {
  Plan plan;
  auto graph = describe(p, windows, handle);
  if (!graph || graph->create_execution_plan(recipe.engine, recipe.knobs).is_bad() || graph->check_support().is_bad() ||
      graph->build_plans().is_bad() || graph->get_workspace_size(plan.workspace).is_bad()) {
    return plan;
  }
  plan.graph = std::move(graph);
  return plan;
}

/// A window of more keys than there are is none; 0 is what AttentionArgs says for it, too.
SdpaProblem normalised(SdpaProblem p) {
  if (p.sliding_window >= p.length) p.sliding_window = 0;
  return p;
}

}  // namespace

struct Sdpa::State {
  struct Family {
    bool supported = false;
    Recipe recipe;
    std::map<int64_t, Plan> plans;  // by number of windows
  };

  explicit State(cudaStream_t s) : stream(s) {}
  ~State() {
    families.clear();
    if (handle != nullptr) cudnnDestroy(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Loads cuDNN at the first question, for it takes its time. False if it cannot be used.
  bool start() {
    if (started) return usable;
    started = true;
    usable = cudnnCreate(&handle) == CUDNN_STATUS_SUCCESS && cudnnSetStream(handle, stream) == CUDNN_STATUS_SUCCESS;
    return usable;
  }

  Family& family(const SdpaProblem& p) {
    const auto [at, is_new] = families.try_emplace(shape_of(p));
    Family& family = at->second;
    if (!is_new) return family;
    // Of what the heuristics propose for one window, the first that works.
    auto proposals = describe(p, 1, handle);
    if (!proposals || proposals->create_execution_plans({fe::HeurMode_t::A}).is_bad()) return family;
    for (int64_t i = 0; i < proposals->get_execution_plan_count(); ++i) {
      Recipe recipe;
      if (proposals->get_engine_and_knobs_at_index(i, recipe.engine, recipe.knobs).is_bad()) continue;
      Plan plan = build(p, 1, recipe, handle);
      if (!plan.graph) continue;
      family.supported = true;
      family.recipe = std::move(recipe);
      family.plans.emplace(1, std::move(plan));
      break;
    }
    return family;
  }

  static void execute(const Plan& plan, const SdpaProblem& p, cudnnHandle_t handle, DeviceCache& memory) {
    std::unordered_map<int64_t, void*> pointers{
        {kQ, const_cast<void*>(p.q)}, {kK, const_cast<void*>(p.k)}, {kV, const_cast<void*>(p.v)}, {kOut, p.out}};
    std::shared_ptr<void> workspace;
    if (plan.workspace > 0) workspace = memory.allocate(static_cast<size_t>(plan.workspace));
    auto status = plan.graph->execute(handle, pointers, workspace.get());
    if (status.is_bad()) {
      throw Error("cuDNN failed in attention (" + status.get_message() + "); this is a bug of mxlm or of cuDNN.");
    }
  }

  cudaStream_t stream;
  cudnnHandle_t handle = nullptr;
  bool started = false, usable = false;
  std::map<Shape, Family> families;
};

Sdpa::Sdpa(cudaStream_t stream) : state_(std::make_unique<State>(stream)) {}
Sdpa::~Sdpa() = default;

bool Sdpa::supports(const SdpaProblem& problem) {
  const SdpaProblem p = normalised(problem);
  if (p.head_dim % 8 != 0 || p.head_dim > 256 || p.length < 1 || !is_aligned(p)) return false;
  if (p.length > std::numeric_limits<int32_t>::max()) return false;
  return state_->start() && state_->family(p).supported;
}

void Sdpa::run(const SdpaProblem& problem, DeviceCache& memory) {
  SdpaProblem p = normalised(problem);
  State::Family& family = state_->family(p);
  assert(family.supported);
  const auto [at, is_new] = family.plans.try_emplace(p.windows);
  if (is_new) at->second = build(p, p.windows, family.recipe, state_->handle);
  if (at->second.graph) return State::execute(at->second, p, state_->handle, memory);
  // The recipe does not go with so many windows: one after the other.
  const Plan& single = family.plans.at(1);
  const auto step = [&](const void* data, int64_t row) {
    return static_cast<const std::byte*>(data) + p.length * row * static_cast<int64_t>(sizeof(uint16_t));
  };
  for (int64_t w = 0; w < p.windows; ++w) {
    State::execute(single, p, state_->handle, memory);
    p.q = step(p.q, p.q_row);
    p.k = step(p.k, p.k_row);
    p.v = step(p.v, p.v_row);
    p.out = const_cast<std::byte*>(step(p.out, p.out_row));
  }
}

}  // namespace mxlm::cuda

#else  // without cuDNN

namespace mxlm::cuda {

struct Sdpa::State {};
Sdpa::Sdpa(cudaStream_t /*stream*/) {}
Sdpa::~Sdpa() = default;
bool Sdpa::supports(const SdpaProblem& /*problem*/) { return false; }
void Sdpa::run(const SdpaProblem& /*problem*/, DeviceCache& /*memory*/) { assert(false); }

}  // namespace mxlm::cuda

#endif
