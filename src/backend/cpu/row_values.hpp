#pragma once

// What the files of row operations share: elements of a row as float32, and rounding as a tensor would.

#include <cstdint>

#include "backend/cpu/vector_math.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

/// float32 values that vectors hold on every instruction set, and partial sums of a reduction.
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

}  // namespace mxlm::cpu
