#pragma once

// Vectors of 16 lanes for each instruction set, with their exponentials.

#include "backend/cpu/simd/avx2.hpp"
#include "backend/cpu/simd/avx512.hpp"
#include "backend/cpu/simd/portable.hpp"

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
