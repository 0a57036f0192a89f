#pragma once

// What happens to one row at a time, in the dtype of the model (norms and activation functions have files of their
// own). Every step of a bfloat16 model is computed in float32 and rounded where the reference implementation stores a
// tensor. All give the same bits on every instruction set, but AVX512-BF16 epilogues make zeros of what is below
// 2^-126.

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/isa.hpp"

namespace mxlm::cpu {

/// The heads of a row that turn: the first 2 * half values of each, `head_stride` apart, in pairs (i, i + half), or
/// (2i, 2i + 1) where interleaved.
struct Rotation {
  int heads = 0, head_stride = 0, half = 0;
  bool interleaved = false;
};

/// Turns pairs in place, pair i by cos[i], sin[i]. Products are rounded to the type of the tables, their sum to the
/// row's.
void rotate_row(Isa isa, const Rotation& rotation, BFloat16* x, const BFloat16* cos, const BFloat16* sin);
void rotate_row(Isa isa, const Rotation& rotation, BFloat16* x, const float* cos, const float* sin);
void rotate_row(Isa isa, const Rotation& rotation, float* x, const float* cos, const float* sin);

/// out = round(round(round(sum + bias) * multiplier) + residual), n values; bias and residual may be null, residual may
/// be out.
void finish_row(Isa isa, const float* sum, const float* bias, float multiplier, const BFloat16* residual, int64_t n,
                BFloat16* out);
void finish_row(Isa isa, const float* sum, const float* bias, float multiplier, const float* residual, int64_t n,
                float* out);

/// out = round(round(round(a) * multiplier) + b), n values; out may be a or b.
void add_row(Isa isa, const BFloat16* a, const BFloat16* b, float multiplier, int64_t n, BFloat16* out);
void add_row(Isa isa, const float* a, const BFloat16* b, float multiplier, int64_t n, BFloat16* out);
void add_row(Isa isa, const float* a, const float* b, float multiplier, int64_t n, float* out);

/// x = round(x * multiplier), n values.
void scale_row(Isa isa, float multiplier, int64_t n, BFloat16* x);
void scale_row(Isa isa, float multiplier, int64_t n, float* x);

/// x = min(max(x, -limit), limit), n values; NaN stays NaN.
void clamp_row(Isa isa, float limit, int64_t n, BFloat16* x);
void clamp_row(Isa isa, float limit, int64_t n, float* x);

/// sum += weight * y, n values.
void accumulate_row(Isa isa, const BFloat16* y, float weight, int64_t n, float* sum);
void accumulate_row(Isa isa, const float* y, float weight, int64_t n, float* sum);

/// Copies n values between float32, bfloat16 and (as a source) half, rounding to nearest even. Either side may have any
/// alignment.
void convert_row(Isa isa, DType from_type, const void* from, DType to_type, void* to, int64_t n);

/// True if a value is neither zero nor at least 2^-124 in magnitude (NaN is not small).
bool has_small_values(Isa isa, const BFloat16* x, int64_t n);
bool has_small_values(Isa isa, const float* x, int64_t n);

}  // namespace mxlm::cpu
