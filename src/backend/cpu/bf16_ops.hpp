#pragma once

// Vector operations as microxcaling's global mode (`bfloat` = 16, rounding `even`) computes them: each elementary
// operation is done in float32 and its result rounded to bfloat16, sums once over all their terms. T, the dtype of the
// model, is float or BFloat16. For studies: plain code, the same on every instruction set.

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/norm_rows.hpp"

namespace mxlm::cpu {

/// x = x rounded to bfloat16, n values.
void round_row_bf16(float* x, int64_t n);

/// y = LayerNorm of x, n values; y may be x.
template <typename T>
void layer_norm_row_bf16(const NormRow<T>& norm, const T* x, int64_t n, T* y);

/// y = act(x), n values. Of what transformers writes with operators only the function inside is rounded: the tanh of
/// gelu_new, the sigmoid of quick_gelu and swiglu_oai.
template <typename T>
void activation_row_bf16(Activation activation, const T* x, int64_t n, T* y);
/// As gated_row, with that act; the product with `up` is an operator.
template <typename T>
void gated_row_bf16(const GatedArgs& args, const T* gate, const T* up, int64_t n, T* y);

/// Scores of a query, n keys from key `first_offset` = key - query on, as Q K^T gives them, to probabilities, in place.
void attention_row_bf16(const AttentionArgs& args, int head, int64_t first_offset, int64_t n, float* scores);

/// x = round(round(x) + round(bias)), n values; x = round(x) if bias is null.
template <typename T>
void add_bias_row_bf16(const float* bias, int64_t n, T* x);

/// Logits of a row, n of them, from products: bias, multiplier (an operator), then the softcap, 0 = none.
void logits_row_bf16(const float* bias, float multiplier, float softcap, int64_t n, float* logits);

}  // namespace mxlm::cpu
