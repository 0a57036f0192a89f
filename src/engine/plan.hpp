#pragma once

// The plan of a run: its shards, its micro-batches, and the memory that it takes.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "engine/tree.hpp"
#include "engine/weight_store.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

/// How a run is cut into shards and micro-batches, and what it keeps in memory. No plan changes a digit of the result.
struct Plan {
  /// A micro-batch: a half-open range of window ids. A shard, rounds[r], is a list of micro-batches.
  using Range = std::pair<size_t, size_t>;
  std::vector<std::vector<Range>> rounds;
  KeptForm kept = KeptForm::nothing;  // the form in which weights stay between shards
  [[nodiscard]] bool resident() const { return kept != KeptForm::nothing; }
  bool on_device = false;  // the estimates are for a device's memory, except `scores`, which lie in host memory

  // Estimates, in bytes.
  uint64_t limit = 0;          // the most that this process may use; on a device, one worker
  uint64_t kept_weights = 0;   // weights of all variants in the kept form, or as codes if `kept` is nothing
  uint64_t step_weights = 0;   // prepared weights that are in memory at once, in the largest step
  uint64_t head_weights = 0;   // prepared LM heads; on a device also the table of embeddings
  uint64_t head_source = 0;    // file pages of the LM head while it is prepared, before the first step
  uint64_t staging = 0;        // sources of weights: being moved to a device, or a step's mapped files
  uint64_t hidden_states = 0;  // of a shard
  uint64_t scratch = 0;        // of a micro-batch
  uint64_t scores = 0;         // of all windows
  uint64_t base = 0;           // memory of the process before the run; 0 on a device
  [[nodiscard]] uint64_t total() const {
    const uint64_t step = (kept == KeptForm::prepared ? 0 : step_weights) + staging + scratch;
    return base + (resident() ? kept_weights : 0) + std::max(step, head_source) + head_weights + hidden_states +
           (on_device ? 0 : scores);
  }
  double flops_a_token = 0;   // of all variants
  uint64_t source_bytes = 0;  // of all weights, as they move to a device in every shard if nothing is kept
};

/// Whether weights stay between shards. `automatic` keeps them where that is faster. On a CPU, quantising a weight
/// again takes about as long as decoding its kept codes, and encoding takes several times as long. So a CPU keeps
/// weights only if there are many shards, or if the checkpoint does not fit into the page cache beside the run. A
/// device keeps what fits: prepared weights, or else codes, which are small and decode faster than weights arrive from
/// the host.
enum class KeepWeights : uint8_t { automatic, always, never };

struct PlanOptions {
  int64_t batch_windows = 0;  // windows of a micro-batch; 0 = chosen from their lengths
  KeepWeights keep = KeepWeights::automatic;
  uint64_t memory_limit = 0;            // of host memory, including what is in use before the run
  uint64_t memory_in_use = 0;           // of host memory, before the run
  uint64_t device_limit = 0;            // a worker's share of its device's memory; 0 = workers compute in host memory
  size_t workers = 1;                   // the plan has enough shards for all workers
  std::span<const uint8_t> known = {};  // [window]: 1 = its result is known, so no shard holds it; empty = no result is
  int64_t round_tokens = 0;             // most tokens of a shard, which has at least one window; 0 = chosen
};

/// Makes the plan of a run whose model dtype is `compute`. Throws Error if not even one micro-batch fits into memory.
Plan make_plan(const ModelSpec& model, DType compute, const VariantTree& tree, std::span<const Window> windows,
               const PlanOptions& options);

/// The bytes of a kept weight of `elements` elements, in rows of `row` elements, in a format; in `dtype` if the spec is
/// empty.
uint64_t kept_weight_bytes(int64_t elements, int64_t row, const OperandSpec& spec, DType dtype);

}  // namespace mxlm
