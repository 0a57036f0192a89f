#pragma once

// What the files of row operations share: elements of a row as float32, and rounding as a tensor would.

#include <cstdint>

#include "backend/cpu/bf16_vector.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

/// float32 values of an AVX-512 register.
constexpr int64_t kLanes = 16;

inline float load(float x) { return x; }
inline float load(BFloat16 x) { return to_float(x); }
inline void store(float value, float& out) { out = value; }
inline void store(float value, BFloat16& out) { out = to_bfloat16(value); }

/// A value as a tensor of type T would hold it.
template <typename T>
inline float rounded(float x) {
  if constexpr (sizeof(T) == 2) {
    return to_float(to_bfloat16(x));
  } else {
    return x;
  }
}

MXLM_TARGET_AVX512 static inline __mmask16 lanes_left(int64_t left) {
  return static_cast<__mmask16>(left >= kLanes ? 0xffffU : (1U << left) - 1U);
}

// `call` where the instruction set has AVX-512, else on to the next statement.
#define MXLM_IF_AVX512(isa, call) \
  if ((isa) >= Isa::avx512) return call

}  // namespace mxlm::cpu
