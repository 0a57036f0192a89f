#pragma once

// Block-scaled products in hardware, of GPUs of compute capability 10.0 on: elements as FP8 codes and their block
// scales as E8M0 codes, both as the format has them, so that nothing is folded and nothing falls back. cuBLASLt (13.0)
// takes E8M0 scales with FP8 codes only; narrower elements are E4M3 numbers all the same.

#include <optional>

#include "backend/backend.hpp"
#include "backend/cuda/fast_operand.hpp"
#include "backend/cuda/runtime.hpp"
#include "backend/cuda/scale_layout.hpp"

namespace mxlm::cuda {

/// cuBLASLt's FP8 products have outputs in multiples of this.
constexpr int64_t kNativeOutputs = 16;

/// The FP8 type that holds every element of a weight's or an activation's format; nullopt where there is none, blocks
/// are not of 32 values, or rows not of whole blocks. The library has no product of two E5M2, so weights are E4M3.
std::optional<DType> native_type(const OperandSpec& spec, bool weight, int64_t cols);

/// True if an operand is block-scaled.
inline bool is_native(const Operand& x) {
  const FastOperand* fast = fast_part(x);
  return fast != nullptr && fast->scales.dtype() == DType::f8_e8m0;
}

/// `values` (f32, f16 or bf16) quantised in `format` along its rows, as FP8 `codes` (f8_e4m3 or f8_e5m2, zeros from
/// their last column to their stride) and `scales`, scale_bytes() of them, zero behind the last row and block. A NaN
/// block has scale 255 and zero codes.
void encode_native(const mx::Format& format, const View& values, const View& codes, void* scales, cudaStream_t stream);
/// E4M3 codes and scales as bfloat16 values.
void decode_native(const View& codes, const void* scales, const View& out, cudaStream_t stream);

}  // namespace mxlm::cuda
