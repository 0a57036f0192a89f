#pragma once

// What happens to one row at a time, in the dtype of the model (T is float or BFloat16). Every step of a bfloat16 model
// is computed in float32 and rounded where the reference implementation stores a tensor. Norms, rotary, conversions and
// epilogues give the same bits on every instruction set (but AVX512-BF16 epilogues make zeros of what is below 2^-126);
// activation functions differ in the last bits of their float32 value, which a bfloat16 result rarely shows.

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/gemm.hpp"

namespace mxlm::cpu {

/// y = round(round(x * rsqrt(mean(x^2) + epsilon)) * weight), n values.
void norm_row(Isa isa, const BFloat16* x, const BFloat16* weight, float epsilon, int64_t n, BFloat16* y);
void norm_row(Isa isa, const float* x, const float* weight, float epsilon, int64_t n, float* y);

/// y = round(round(act(gate)) * up), n values.
void gated_row(Isa isa, Activation activation, const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y);
void gated_row(Isa isa, Activation activation, const float* gate, const float* up, int64_t n, float* y);

/// Rotates the first 2 * half values of each head in place: pairs (i, i + half), by cos[i], sin[i]; products and their
/// sum are rounded.
void rotate_row(Isa isa, BFloat16* x, int heads, int head_dim, int half, const BFloat16* cos, const BFloat16* sin);
void rotate_row(Isa isa, float* x, int heads, int head_dim, int half, const float* cos, const float* sin);

/// out = round(round(sum + bias) + residual), n values; bias and residual may be null, residual may be out.
void finish_row(Isa isa, const float* sum, const float* bias, const BFloat16* residual, int64_t n, BFloat16* out);
void finish_row(Isa isa, const float* sum, const float* bias, const float* residual, int64_t n, float* out);

/// Copies n values between float32, bfloat16 and (as a source) half, rounding to nearest even. Either side may have any
/// alignment.
void convert_row(Isa isa, DType from_type, const void* from, DType to_type, void* to, int64_t n);

/// True if a value is neither zero nor at least 2^-124 in magnitude (NaN is not small).
bool has_small_values(Isa isa, const BFloat16* x, int64_t n);
bool has_small_values(Isa isa, const float* x, int64_t n);

}  // namespace mxlm::cpu
