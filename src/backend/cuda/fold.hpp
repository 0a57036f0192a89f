#pragma once

// Which products may be folded to FP8, and what is computed beside them.

#include <optional>

#include "backend/backend.hpp"
#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// The FP8 type that a weight or an activation in this format folds into; nullopt where there is none (a format with
/// more mantissa bits than FP8 has, another scaling, rows too long). The library has no product of two E5M2, so weights
/// are E4M3.
std::optional<DType> fold_type(const OperandSpec& spec, bool weight, int64_t cols);
/// True if elements of the format may be rounded in folding: MXFP8, whose products have a bound instead of exactness.
bool fold_rounds(const mx::Format& format);

/// `values` (f32, f16 or bf16) quantised in `format` along its rows and folded into E4M3 `codes` and `scales` [rows].
/// `inexact`, a zeroed device counter, counts rows that do not fit exactly; null where rounding is allowed.
void fold_weight(const mx::Format& format, const View& values, const View& codes, float* scales, int32_t* inexact,
                 cudaStream_t stream);
/// Folded codes and scales as bfloat16 again.
void unfold(const View& codes, const float* scales, const View& out, cudaStream_t stream);
/// out[row - first_row] = x[i] w^T for those rows of `out` that `rows` lists (how many, then which; on the device): `x`
/// in bfloat16, `codes` and `scales` a folded weight, sums in float32. With first_row 0, adds how many are listed to
/// `total`.
void recompute_rows(const View& x, const int32_t* rows, const View& codes, const float* scales, int64_t first_row,
                    const View& out, unsigned long long* total, cudaStream_t stream);

}  // namespace mxlm::cuda
