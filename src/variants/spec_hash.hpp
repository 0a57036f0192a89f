#pragma once

// Hashes of product specs. With them a run finds what it has made for a spec in a time that does not grow with the
// number of variants.

#include <cstddef>
#include <functional>
#include <initializer_list>

#include "backend/backend.hpp"

namespace mxlm {

inline size_t combine_hashes(std::initializer_list<size_t> hashes) {
  size_t out = 0;
  for (const size_t hash : hashes) out ^= hash + 0x9e3779b97f4a7c15U + (out << 6) + (out >> 2);
  return out;
}

inline size_t hash_of(const OperandSpec& spec) {
  if (!spec) return 0;
  const auto number = [](auto value) { return std::hash<int>{}(static_cast<int>(value)); };
  const mx::ElementFormat& element = spec->element;
  return combine_hashes({number(element.kind), number(element.exponent_bits), number(element.mantissa_bits),
                         std::hash<float>{}(element.max), number(spec->block_size), number(spec->scale_bits),
                         number(spec->rule), number(spec->rounding), number(spec->scaling)});
}

inline size_t hash_of(const ProductSpec& spec) {
  return combine_hashes({hash_of(spec.weights), hash_of(spec.activations), hash_of(spec.outputs),
                         std::hash<Arithmetic>{}(spec.arithmetic)});
}

/// Hashes the members that ProductSpec::same_weights compares.
struct WeightsHash {
  size_t operator()(const ProductSpec& spec) const {
    return combine_hashes({hash_of(spec.weights), std::hash<Arithmetic>{}(spec.arithmetic)});
  }
};
struct SameWeights {
  bool operator()(const ProductSpec& a, const ProductSpec& b) const { return a.same_weights(b); }
};

}  // namespace mxlm
