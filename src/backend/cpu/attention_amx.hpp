#pragma once

// Causal attention of one head in bf16 with AMX. Not for users of attention.hpp.
//
// The output stays in place while keys go by: it is rescaled only when the scores of a row outgrow its reference by
// far. Products and softmax alternate instead of overlapping: while tile instructions are in flight, the processor does
// 512-bit floating-point instructions on one port instead of two (measured), and a tile store that waits for its
// product holds up everything behind it.

#include <cstddef>
#include <cstdint>

#include "backend/cpu/gemm.hpp"
#include "backend/cpu/score_rows.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

/// Queries computed at a time, and keys of one step of the online softmax.
constexpr int64_t kAmxQueries = 32;
constexpr int64_t kAmxKeys = 128;

/// Some queries of one head and window.
struct AmxAttention {
  Order order = Order::forward;
  int64_t head_dim = 0;
  int64_t depth = 0;           // head_dim rounded up to 32: panels of K, and of V, are that deep and that wide
  float log2_scale = 1;        // scale * log2(e), > 0
  int64_t begin = 0, end = 0;  // queries of the window; `begin` is a multiple of kAmxQueries
  int64_t padded_length = 0;   // keys of the window, rounded up to 32 with zeros in both panels
  int64_t key_limit = 0;       // (padded_length: all are real) query i sees key j if j <= i, j < key_limit and j > i -
                               // window (or window is 0)
  int64_t window = 0;
  ScoreTransform transform;     // where needed(), replaces log2_scale
  float log2_sink = 0;          // -inf: none
  const BFloat16* q = nullptr;  // query 0 of the window
  int64_t q_stride = 0;
  const BFloat16* keys = nullptr;    // [padded_length / 16] panels as pack_panel_bf16 makes them
  const BFloat16* values = nullptr;  // for each kAmxKeys keys (fewer at the end) [depth / 16] panels over those keys
  BFloat16* out = nullptr;           // query 0 of the window
  int64_t out_stride = 0;
};

/// Bytes of scratch memory, 64-byte aligned, that attend_amx wants.
size_t amx_scratch_bytes(int64_t depth);
void attend_amx(const AmxAttention& task, std::byte* scratch);

}  // namespace mxlm::cpu
