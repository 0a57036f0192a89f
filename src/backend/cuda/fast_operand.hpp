#pragma once

// What an operand of FP8 codes (fold.hpp, native.hpp) needs beside its codes.

#include "backend/backend.hpp"

namespace mxlm::cuda {

class FastOperand final : public DeviceOperand {
 public:
  /// Folded exponents: [1, rows] float32 powers of two. Block-scaled: E8M0 codes as scale_layout.hpp has them.
  Tensor scales;
  /// Folded exponents, where a format does not fit FP8: the rows that did not fit, in bfloat16, one after the other,
  /// and which rows they are ([1, rows + 1] int32: how many, then their numbers); else empty.
  Tensor inexact, inexact_rows;
};

/// Null for an operand that is not of FP8 codes.
inline FastOperand* fast_part(Operand& x) { return static_cast<FastOperand*>(x.device.get()); }
inline const FastOperand* fast_part(const Operand& x) { return static_cast<const FastOperand*>(x.device.get()); }

}  // namespace mxlm::cuda
