#pragma once

// The kernels behind CudaBackend::attention, for whatever cuDNN does not do (sdpa.hpp). Results are those of
// backend/cpu/attention.hpp but for the order of sums. A window's bits depend on nothing else in the batch.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// Queries [begin, begin + tile) of a window: its first row, its rows, and the keys that its queries may see.
struct AttentionTile {
  int32_t first = 0, length = 0, limit = 0, begin = 0;
};

/// The tiles of `queries` queries of all windows, those that see the most keys first. `offsets` and `keys` as Batch
/// has them.
std::vector<AttentionTile> attention_tiles(std::span<const int64_t> offsets, std::span<const int32_t> keys,
                                           int64_t queries);

constexpr int64_t kFlashQueries = 64;      // of a tile of flash_attention
constexpr int64_t kQuantisedQueries = 16;  // of a tile of quantised_attention

/// What all heads and windows share; device pointers.
struct AttentionProblem {
  View q, k, v, out;  // of one type, bf16 or f32; rows are those of the batch
  const AttentionTile* tiles = nullptr;
  int64_t tile_count = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  int64_t q_head = 0, kv_head = 0;  // elements between heads
  float scale = 1, softcap = 0;
  int64_t sliding_window = 0;
  const float* slopes = nullptr;  // [heads] or null
  const float* sinks = nullptr;   // [heads] or null
};

/// Online softmax over tiles of keys, on tensor cores. bfloat16: P is rounded to bfloat16 for P V. float32: each
/// product is that of the operands split into two TF32 parts, summed in float32; an Inf inside comes out as NaN.
void flash_attention(const AttentionProblem& problem, cudaStream_t stream);

/// attention_quantised, on whole windows: `tiles` are of kQuantisedQueries.
struct QuantisedProblem {
  AttentionProblem problem;
  ProductSpec qk, pv;
  Arithmetic arithmetic = Arithmetic::model_dtype;
  const int64_t* offsets = nullptr;  // device, [windows + 1]
  int64_t windows = 0;
  int64_t rows = 0;     // of the batch
  int64_t longest = 0;  // rows of the longest window
};
/// Device memory that it wants: for its operands and, times the number of warps that work at a time, for rows of
/// scores.
struct QuantisedScratch {
  size_t q = 0, k = 0, v = 0, scores_per_warp = 0;
};
QuantisedScratch quantised_attention_scratch(const QuantisedProblem& problem);
/// Q and K quantised along head_dim, V along the keys, the normalised P along the keys. `q`, `k`, `v` and `scores`
/// (`warps` times scores_per_warp) are scratch.
void quantised_attention(const QuantisedProblem& problem, float* q, float* k, float* v, float* scores, int64_t warps,
                         cudaStream_t stream);

}  // namespace mxlm::cuda
