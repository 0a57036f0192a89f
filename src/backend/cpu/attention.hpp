#pragma once

// Causal attention over packed windows on the CPU: the operation Backend::attention, without its operands.

#include <cstdint>
#include <span>

#include "backend/backend.hpp"
#include "backend/cpu/gemm.hpp"
#include "backend/cpu/score_rows.hpp"
#include "base/parallel.hpp"
#include "tensor/tensor.hpp"

namespace mxlm::cpu {

/// out = softmax(scale * Q K^T) V, causal within each window, for every head.
///
/// `q` and `out` are [rows, heads * head_dim], `k` and `v` [rows, kv_heads * head_dim] (with head strides: whatever
/// holds the heads), all of one dtype, bf16 or f32; head h reads key/value head h / (heads / kv_heads). Window w is
/// rows [offsets[w], offsets[w + 1]); head_dim <= 256, args.scale > 0. `out` may not overlap the inputs.
///
/// Query i of window w sees key j if j <= i, j < keys[w] (where `keys` is not empty) and j > i - args.window (where
/// that is not 0). A query of the padding may see none: its output is 0. Blocks of keys that no query of a block sees
/// cost nothing.
///
/// Products accumulate in float32, the softmax is float32, the output is rounded once. In a bf16 model the
/// probabilities are rounded to bf16 for P * V. Works in blocks of queries and keys that are counted from the first
/// token of the window, so that a row gives the same bits whatever else is in the batch and however many threads run;
/// memory beyond the arguments is proportional to the rows, never to their square. `order` reverses the float32 sums
/// (to measure the noise of rounding).
///
/// Where args.qk or args.pv name formats, the operands are quantised first: Q and K along head_dim, the normalised P
/// along the keys, V of a key/value head along the keys, both in blocks that start at key 0 of the window. A block of V
/// holds keys that a query may not see yet, so its scale can look ahead by up to a block; that is how the reference
/// (microxcaling on the matrix products of eager attention) has it.
void attention(Isa isa, Order order, ThreadPool& pool, const Tensor& q, const Tensor& k, const Tensor& v,
               std::span<const int64_t> offsets, std::span<const int32_t> keys, const AttentionArgs& args, Tensor& out);

/// What a head does to its scores.
ScoreTransform score_transform(const AttentionArgs& args, int head);
/// The sink of a head in units of log2, -inf if there is none.
float log2_sink(const AttentionArgs& args, int head);
/// Columns from a head of q, or of k and v, to the next.
inline int64_t q_head_stride(const AttentionArgs& args) {
  return args.q_head_stride == 0 ? args.head_dim : args.q_head_stride;
}
inline int64_t kv_head_stride(const AttentionArgs& args) {
  return args.kv_head_stride == 0 ? args.head_dim : args.kv_head_stride;
}

}  // namespace mxlm::cpu
