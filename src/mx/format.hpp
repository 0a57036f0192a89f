#pragma once

// The one table of element formats, scale rules and roundings: parsing, printing, quantising, packing and tests follow
// from it. No other file names a format. Shared by host and device code: plain data and constexpr functions only.
// Sources: OCP Microscaling Formats (MX) v1.0; microsoft/microxcaling mx/formats.py; pytorch/ao prototype/mx_formats.

#include <array>
#include <cstdint>
#include <string_view>

namespace mxlm::mx {

enum class ElementKind : uint8_t { floating, integer };

/// One element format. Floating: sign, exponent and mantissa bits, subnormals kept; `max` is the largest magnitude.
/// Integer: two's complement with `mantissa` fraction bits (INT8: 6), clipped symmetrically.
struct ElementFormat {
  ElementKind kind = ElementKind::floating;
  int8_t exponent_bits = 0;
  int8_t mantissa_bits = 0;  // fraction bits
  int8_t emax = 0;           // exponent of the largest binade
  int8_t emin = 0;           // exponent of the smallest normal binade (integers: 0)
  float max = 0;             // largest magnitude

  [[nodiscard]] constexpr int bits() const {
    return kind == ElementKind::integer ? mantissa_bits + 2 : 1 + exponent_bits + mantissa_bits;
  }
  friend constexpr bool operator==(const ElementFormat&, const ElementFormat&) = default;
};

enum class ScaleRule : uint8_t { floor, ceil, even, rceil, ct, mse };
enum class Rounding : uint8_t { even, nearest, floor };

/// A block format: elements that share one power-of-two scale per `block_size` values along the last axis.
struct BlockFormat {
  ElementFormat element;
  int block_size = 32;  // 0 = the whole row
  int scale_bits = 8;
  ScaleRule rule = ScaleRule::floor;
  Rounding rounding = Rounding::even;
  friend constexpr bool operator==(const BlockFormat&, const BlockFormat&) = default;
};

}  // namespace mxlm::mx
