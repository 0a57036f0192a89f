#pragma once

// One block by the functions of mx/quantize.hpp: every block of the portable code, and those of the vector code that
// lie at the ends of the range.

#include <algorithm>
#include <vector>

#include "backend/cpu/row_values.hpp"
#include "mx/quantize.hpp"

namespace mxlm::cpu {

/// The scale exponent of a block of n values, kNanExponent if the block is NaN.
inline int exponent_of(const mx::Format& f, const float* in, int64_t n) { return mx::block_exponent(f, in, n); }
inline int exponent_of(const mx::Format& f, const BFloat16* in, int64_t n) {
  if (f.rule != mx::ScaleRule::mse) {
    uint32_t amax = 0;
    for (int64_t i = 0; i < n; ++i) amax = std::max(amax, static_cast<uint32_t>(in[i].bits & 0x7fffU) << 16);
    return mx::shared_exponent(f, amax);
  }
  std::vector<float> wide(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) wide[static_cast<size_t>(i)] = to_float(in[i]);
  return mx::block_exponent(f, wide.data(), n);
}

/// Quantises n values with the scale exponent `e` and decodes them.
template <typename In, typename Out>
__attribute__((noinline)) void quantize_block(const mx::Format& f, int e, const In* in, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float value = e == mx::kNanExponent ? mx::detail::float_of(mx::detail::kQuietNan)
                                              : mx::quantize_decode(f.element, f.rounding, e, load(in[i]));
    store(value, out[i]);
  }
}

}  // namespace mxlm::cpu
