#pragma once

// Types of stored numbers, and conversions to and from float.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mxlm {

/// The types of stored numbers, under the names that safetensors uses.
enum class DType : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0
};

/// Bytes of one element.
constexpr size_t dtype_size(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
    case DType::u64:
      return 8;
    case DType::f32:
    case DType::i32:
    case DType::u32:
      return 4;
    case DType::f16:
    case DType::bf16:
    case DType::i16:
    case DType::u16:
      return 2;
    default:
      return 1;
  }
}

/// The safetensors name ("BF16") of a type, and the type of a name (nullopt if unknown).
std::string_view dtype_name(DType type);
std::optional<DType> dtype_from_name(std::string_view name);

/// A stored bfloat16; arithmetic happens in float.
struct BFloat16 {
  uint16_t bits;
};

constexpr float to_float(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

/// Rounds to nearest, ties to even; a NaN stays a NaN.
constexpr BFloat16 to_bfloat16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

/// Converts an IEEE half to float, exactly.
float half_to_float(uint16_t bits);

}  // namespace mxlm
