#pragma once

#include "backend/backend.hpp"
#include "backend/cuda/powers.cuh"
#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// What a linear does to rows of its product `y` (of out's type): times `powers` (float32 only); + `bias`, in
/// `arithmetic`; quantise along the row; multiply and round; + residual and round (LinearEpilogue says when).
/// `powers`, `bias` and `residual` may be empty; `out` may be `y` or the residual; `y` may be overwritten.
void finish_rows(const View& y, const Powers& powers, const float* bias, const OperandSpec& outputs, float multiplier,
                 const View& residual, Arithmetic arithmetic, const View& out, cudaStream_t stream);

}  // namespace mxlm::cuda
