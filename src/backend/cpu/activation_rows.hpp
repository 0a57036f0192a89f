#pragma once

// Activation functions of one row in the dtype of the model (T is float or BFloat16). AVX2 and AVX-512 give the same
// bits; plain x86-64 differs in the last bits of a float32 value, which a bfloat16 result rarely shows.

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/isa.hpp"

namespace mxlm::cpu {

/// y = act(x), n values; not swiglu_oai, which is gated only.
void activation_row(Isa isa, Activation activation, const BFloat16* x, int64_t n, BFloat16* y);
void activation_row(Isa isa, Activation activation, const float* x, int64_t n, float* y);

/// y = round(round(act(gate)) * up), n values; where args.interleaved, gate[2i] and gate[2i + 1] are gate and up of
/// value i.
void gated_row(Isa isa, const GatedArgs& args, const BFloat16* gate, const BFloat16* up, int64_t n, BFloat16* y);
void gated_row(Isa isa, const GatedArgs& args, const float* gate, const float* up, int64_t n, float* y);

}  // namespace mxlm::cpu
