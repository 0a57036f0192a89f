#pragma once

// What the arithmetic units of this machine reach, as the yardstick for the kernels.

#include "base/parallel.hpp"

namespace mxlm::cpu {

/// GFLOP/s (10^9 multiplications and additions a second) of all threads of a pool together; 0 for what `detect_isa()`
/// leaves out.
struct Peaks {
  double f32 = 0;          // AVX-512 float32 multiply-adds, operands in registers
  double bf16_vector = 0;  // vdpbf16ps, operands in registers
  double amx = 0;          // tdpbf16ps on 2 x 2 tiles, random operands in the first-level cache
};

/// Measures them: the best of many short runs, for a third of a second each kind.
Peaks measure_peaks(ThreadPool& pool);

}  // namespace mxlm::cpu
