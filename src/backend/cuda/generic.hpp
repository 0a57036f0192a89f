#pragma once

// Quantising rows by the definition (mx/quantize.hpp, mx/reference_format.hpp), for every format that quantize.cuh has
// no fast path for. Inputs are f32, f16 or bf16, outputs f32 or bf16; an output may be its input. Columns from `cols`
// up to `width` of an output become zeros.

#include "backend/cuda/runtime.hpp"
#include "mx/format.hpp"

namespace mxlm::cuda {

/// Formats without row scales. `out.cols` are those of `in`.
void quantize_rows(const mx::Format& format, const View& in, const View& out, int64_t width, cudaStream_t stream);

/// What formats with row scales take and give beside values.
struct ScaledRows {
  /// Bits of the largest magnitudes: [windows], by which row r is scaled with amax[window_of[r]] (null window_of: [0]).
  /// Null amax: each row by its own largest magnitude.
  const uint32_t* amax = nullptr;
  const int32_t* window_of = nullptr;  // [rows]
  const uint8_t* outliers = nullptr;   // [windows, cols] flags of the columns that LLM.int8 leaves out, or null
  View left_out = {};                  // where those go, zeros elsewhere; no data: nowhere
  float* row_scales = nullptr;         // [rows], or null
  bool multiply = false;               // values times their scale, instead of apart from it
};
/// Formats with row scales.
void quantize_scaled_rows(const mx::Format& format, const View& in, const View& out, int64_t width,
                          const ScaledRows& args, cudaStream_t stream);
/// amax[window_of[r]] = the largest magnitude's bits among the window's rows, NaN counting as largest; `amax` holds
/// zeros before.
void window_amax(const View& in, const int32_t* window_of, uint32_t* amax, cudaStream_t stream);
/// flags[window_of[r]][c] = 1 where mx::is_outlier; they hold zeros before.
void mark_outliers(const View& in, const int32_t* window_of, uint8_t* flags, cudaStream_t stream);

/// E8M0 codes of the block scales of a block format, [rows, mx::block_count(format, cols)].
void block_scale_codes(const mx::Format& format, const View& in, uint8_t* scales, cudaStream_t stream);

}  // namespace mxlm::cuda
