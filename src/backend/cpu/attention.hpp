#pragma once

// Causal attention over packed windows on the CPU: the operation Backend::attention, without its operands.

#include <cstdint>
#include <span>

#include "backend/backend.hpp"
#include "backend/cpu/gemm.hpp"
#include "base/parallel.hpp"
#include "tensor/tensor.hpp"

namespace mxlm::cpu {

/// out = softmax(scale * Q K^T) V, causal within each window, for every head.
///
/// `q` and `out` are [rows, heads * head_dim], `k` and `v` [rows, kv_heads * head_dim], all of one dtype, bf16 or f32;
/// head h reads key/value head h / (heads / kv_heads). Window w is rows [offsets[w], offsets[w + 1]); head_dim <= 256,
/// args.scale > 0. `out` may not overlap the inputs.
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
               std::span<const int64_t> offsets, const AttentionArgs& args, Tensor& out);

}  // namespace mxlm::cpu
