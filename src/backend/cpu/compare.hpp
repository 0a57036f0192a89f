#pragma once

#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/isa.hpp"

namespace mxlm::cpu {

/// Sums over a row of n values. Differences and partial sums (32 of them) are float32, in one order for every
/// instruction set.
ErrorSums compare_row(Isa isa, const float* reference, const float* other, int64_t n);
ErrorSums compare_row(Isa isa, const BFloat16* reference, const BFloat16* other, int64_t n);

}  // namespace mxlm::cpu
