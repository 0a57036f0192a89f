#pragma once

// Attention whose products read quantised operands; attention() comes here when args.qk or args.pv name formats,
// or operations are rounded to bfloat16 (args.arithmetic).

#include <cstdint>
#include <span>

#include "backend/backend.hpp"
#include "backend/cpu/gemm.hpp"
#include "base/parallel.hpp"
#include "tensor/tensor.hpp"

namespace mxlm::cpu {

/// As attention(). The softmax is finished (a row of scores as long as its window is kept for 16 queries at a time)
/// before P is rounded to the model dtype and quantised: a block of P has one scale, so it needs the normalised values.
/// Products are exact in float32 accumulation; bf16 kernels do those whose operands are bf16 values.
void attention_quantized(Isa isa, Order order, ThreadPool& pool, const Tensor& q, const Tensor& k, const Tensor& v,
                         std::span<const int64_t> offsets, std::span<const int32_t> keys, const AttentionArgs& args,
                         Tensor& out);

}  // namespace mxlm::cpu
