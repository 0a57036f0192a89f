#pragma once

// Exponentials of 16 lanes for each instruction set.

#include "backend/cpu/simd/avx2.hpp"
#include "backend/cpu/simd/avx512.hpp"

// What a body is compiled with: MXLM_OP for functions that become part of their callers, MXLM_BODY for the others.
namespace mxlm::cpu::avx2 {
#define MXLM_OP MXLM_AVX2_OP
#include "backend/cpu/simd/math.inl"
#undef MXLM_OP
}  // namespace mxlm::cpu::avx2

namespace mxlm::cpu::avx512 {
#define MXLM_OP MXLM_AVX512_OP
#include "backend/cpu/simd/math.inl"
#undef MXLM_OP
}  // namespace mxlm::cpu::avx512
