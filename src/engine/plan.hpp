#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "engine/tree.hpp"
#include "engine/weight_store.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

/// How a run is cut into rounds and micro-batches, and what it keeps in memory. Nothing here changes a digit.
struct Plan {
  /// Half-open ranges of window indices: rounds[r] is a list of micro-batches.
  using Range = std::pair<size_t, size_t>;
  std::vector<std::vector<Range>> rounds;
  KeptForm kept = KeptForm::nothing;  // what stays of weights between rounds
  [[nodiscard]] bool resident() const { return kept != KeptForm::nothing; }
  bool on_device = false;  // the estimates are of a device's own memory; the scores alone lie in the host's

  // Estimates, in bytes.
  uint64_t limit = 0;          // what this process may use, or a worker of its device's memory
  uint64_t kept_weights = 0;   // all variants' weights in the form that is kept; if none is, as codes
  uint64_t step_weights = 0;   // prepared weights alive at once in the largest step
  uint64_t head_weights = 0;   // and, on a device, the table of embeddings
  uint64_t head_source = 0;    // pages of the head's file while it is prepared, before the first step
  uint64_t staging = 0;        // sources of weights: on their way to a device, or a step's mapped from their files
  uint64_t hidden_states = 0;  // of a round
  uint64_t scratch = 0;        // of a micro-batch
  uint64_t scores = 0;         // of all windows
  uint64_t base = 0;           // what the process held before the run; 0 on a device
  [[nodiscard]] uint64_t total() const {
    const uint64_t step = (kept == KeptForm::prepared ? 0 : step_weights) + staging + scratch;
    return base + (resident() ? kept_weights : 0) + std::max(step, head_source) + head_weights + hidden_states +
           (on_device ? 0 : scores);
  }
  double flops_a_token = 0;   // of all variants
  uint64_t source_bytes = 0;  // of all weights, as they are brought to a device when nothing is kept
};

/// Whether weights stay between rounds. `automatic` keeps them where that is faster. On a CPU quantising a weight again
/// takes about as long as decoding what was kept, but encoding it costs several times that, so only after many rounds,
/// or where the checkpoint does not fit the page cache beside the run. On a device what fits is kept: prepared, or else
/// as codes, which are small and decoded faster than anything comes from the host.
enum class KeepWeights : uint8_t { automatic, always, never };

struct PlanOptions {
  int64_t batch_windows = 0;  // windows a micro-batch; 0 = chosen from their lengths
  KeepWeights keep = KeepWeights::automatic;
  uint64_t memory_limit = 0;            // of the host's memory, with what is in use already
  uint64_t memory_in_use = 0;           // of the host's, before the run
  uint64_t device_limit = 0;            // of a worker's share of its device's memory; 0 = it computes in the host's
  size_t workers = 1;                   // that take rounds: there are enough rounds for all
  std::span<const uint8_t> known = {};  // [window]: 1 = known already, and in no round; empty = none is
  int64_t round_tokens = 0;  // tokens a round at most (but one window at least); 0 = chosen from the arithmetic
};

/// For a run that computes in `compute`. Throws Error if even one micro-batch cannot fit.
Plan make_plan(const ModelSpec& model, DType compute, const VariantTree& tree, std::span<const Window> windows,
               const PlanOptions& options);

/// Bytes that a weight of `elements` elements in rows of `row` takes in a spec when kept; `dtype` where the spec is
/// empty.
uint64_t kept_weight_bytes(int64_t elements, int64_t row, const OperandSpec& spec, DType dtype);

}  // namespace mxlm
