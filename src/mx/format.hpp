#pragma once

// The table of element formats, reference formats, scale rules and roundings. Parsing, printing, quantising, packing
// and tests follow from it; no other file names a format. Host and device code share it, so it holds plain data and
// constexpr functions only. Sources: OCP Microscaling Formats (MX) v1.0; microsoft/microxcaling mx/formats.py;
// pytorch/ao prototype/mx_formats.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#if defined(__CUDACC__)
#define MXLM_HOST_DEVICE __host__ __device__
#else
#define MXLM_HOST_DEVICE
#endif

namespace mxlm::mx {

enum class ElementKind : uint8_t { floating, integer };

/// An element format. Floating: a sign, exponent bits and mantissa bits, with subnormals; `max` is the largest
/// magnitude. Integer: two's complement with `mantissa` fraction bits (INT8: 6), clipped symmetrically.
struct ElementFormat {
  ElementKind kind = ElementKind::floating;
  int8_t exponent_bits = 0;
  int8_t mantissa_bits = 0;  // fraction bits
  int8_t emax = 0;           // exponent of the largest binade
  int8_t emin = 0;           // exponent of the smallest normal binade (integers: 0)
  float max = 0;             // largest magnitude

  [[nodiscard]] MXLM_HOST_DEVICE constexpr int bits() const {
    return kind == ElementKind::integer ? mantissa_bits + 2 : 1 + exponent_bits + mantissa_bits;
  }
  friend constexpr bool operator==(const ElementFormat&, const ElementFormat&) = default;
};

enum class ScaleRule : uint8_t { floor, ceil, even, rceil, ct, mse };
enum class Rounding : uint8_t { even, nearest, toward_zero };

/// What scales the elements of a format. `block` is Microscaling; the others belong to the reference formats that
/// Microscaling is compared with (mx/reference_format.hpp defines them).
enum class Scaling : uint8_t {
  block,          // a power of two for each block (E8M0)
  none,           // nothing: a cast
  element,        // a power of two for each element, so that only its mantissa is rounded
  row,            // a float32 for each row
  tensor,         // a float32 for the tensor
  nvfp4,          // an E4M3 number for each block and a float32 for the tensor
  int8_outliers,  // a float32 for each row; columns with outliers are left out (LLM.int8)
};

/// A format of a tensor. With block scaling, each `block_size` values along the last axis share one power-of-two scale.
/// Other scalings ignore `block_size`, `scale_bits` and `rule` unless stage.hpp says otherwise.
struct Format {
  ElementFormat element;
  int block_size = 32;  // 0 = the whole row
  int scale_bits = 8;
  ScaleRule rule = ScaleRule::floor;
  Rounding rounding = Rounding::even;
  Scaling scaling = Scaling::block;
  friend constexpr bool operator==(const Format&, const Format&) = default;
};

// --- making element formats

/// Bounds of the generic names: mxeXmY with 1 <= X <= 7 and at most 16 bits in total, mxintN with 2 <= N <= 16. (With 8
/// exponent bits the largest binade would exceed float32.)
constexpr int kMaxExponentBits = 7;
constexpr int kMaxElementBits = 16;
constexpr int kMinIntegerBits = 2;

/// 2^n as a float, for n in [-126, 127].
MXLM_HOST_DEVICE constexpr float power_of_two(int n) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(n + 127) << 23);
}

/// A sign, X exponent bits with bias 2^(X-1) - 1, Y mantissa bits; every code is a number (no Inf, no NaN).
constexpr ElementFormat make_float(int exponent_bits, int mantissa_bits) {
  const int emax = 1 << (exponent_bits - 1);
  ElementFormat f;
  f.kind = ElementKind::floating;
  f.exponent_bits = static_cast<int8_t>(exponent_bits);
  f.mantissa_bits = static_cast<int8_t>(mantissa_bits);
  f.emax = static_cast<int8_t>(emax);
  f.emin = static_cast<int8_t>(2 - emax);
  f.max = power_of_two(emax) * (2 - power_of_two(-mantissa_bits));
  return f;
}

/// Two's complement of N bits with N - 2 fraction bits; the most negative code is never produced.
constexpr ElementFormat make_int(int bits) {
  ElementFormat f;
  f.kind = ElementKind::integer;
  f.mantissa_bits = static_cast<int8_t>(bits - 2);
  f.max = 2 - power_of_two(2 - bits);
  return f;
}

/// As make_float, but the codes at the top are Inf or NaN, so that the largest number is `max`, in the binade of
/// `emax`.
constexpr ElementFormat make_float_with_specials(int exponent_bits, int mantissa_bits, int emax, float max) {
  ElementFormat f = make_float(exponent_bits, mantissa_bits);
  f.emax = static_cast<int8_t>(emax);
  f.max = max;
  return f;
}

/// bfloat16: it has float32's exponents, so it is the only format whose largest binade make_float cannot reach.
constexpr ElementFormat make_bfloat16() {
  ElementFormat f;
  f.kind = ElementKind::floating;
  f.exponent_bits = 8;
  f.mantissa_bits = 7;
  f.emax = 127;
  f.emin = -126;
  f.max = power_of_two(127) * (2 - power_of_two(-7));
  return f;
}

// --- the table

struct NamedElement {
  std::string_view name;  // canonical
  std::array<std::string_view, 2> aliases;
  ElementFormat format;
  std::string_view note;
};

inline constexpr std::array<NamedElement, 6> kElements{{
    {"mxfp8_e4m3", {"mxfp8", "fp8_e4m3"}, make_float_with_specials(4, 3, 8, 448), "OCP MXFP8; no Inf, one NaN"},
    {"mxfp8_e5m2",
     {"fp8_e5m2", ""},
     make_float_with_specials(5, 2, 15, 57344),
     "OCP MXFP8; Inf and NaN, never produced"},
    {"mxfp6_e3m2", {"mxfp6", "fp6_e3m2"}, make_float(3, 2), "OCP MXFP6"},
    {"mxfp6_e2m3", {"fp6_e2m3", ""}, make_float(2, 3), "OCP MXFP6"},
    {"mxfp4_e2m1", {"mxfp4", "fp4_e2m1"}, make_float(2, 1), "OCP MXFP4"},
    {"mxint8", {"int8", ""}, make_int(8), "OCP MXINT8, clipped symmetrically"},
}};

/// A reference format: a number format, or a way of scaling, that Microscaling is compared with. Its settings are
/// fixed, except for the rounding where `rounds` is true.
struct ReferenceFormat {
  std::string_view name;  // canonical
  std::string_view alias;
  Format format;
  bool takes_rounding = false;  // takes the key `round`
  std::string_view note;
};

namespace detail {

inline constexpr ElementFormat kE4M3 = kElements[0].format;
inline constexpr ElementFormat kE5M2 = kElements[1].format;
inline constexpr ElementFormat kE2M1 = kElements[4].format;
inline constexpr ElementFormat kInt8 = kElements[5].format;

constexpr Format reference_format(const ElementFormat& element, Scaling scaling, int block_size) {
  Format f;
  f.element = element;
  f.block_size = block_size;
  f.scaling = scaling;
  return f;
}

}  // namespace detail

inline constexpr std::array<ReferenceFormat, 12> kReferenceFormats{{
    {"bf16", "bfp16", detail::reference_format(make_bfloat16(), Scaling::none, 1), true, "a cast to bfloat16"},
    {"fp8_e4m3_unscaled", "", detail::reference_format(detail::kE4M3, Scaling::none, 1), true, "a saturating cast"},
    {"fp8_e5m2_unscaled", "", detail::reference_format(detail::kE5M2, Scaling::none, 1), true, "a saturating cast"},
    {"fp8_e4m3_own_exponent", "", detail::reference_format(detail::kE4M3, Scaling::element, 1), true,
     "each element its own power of two"},
    {"fp8_e5m2_own_exponent", "", detail::reference_format(detail::kE5M2, Scaling::element, 1), true,
     "each element its own power of two"},
    {"fp8_e4m3_tensor", "", detail::reference_format(detail::kE4M3, Scaling::tensor, 0), false,
     "float32 scale amax / 448"},
    {"fp8_e5m2_tensor", "", detail::reference_format(detail::kE5M2, Scaling::tensor, 0), false,
     "float32 scale amax / 57344"},
    {"fp8_e4m3_row", "", detail::reference_format(detail::kE4M3, Scaling::row, 0), false,
     "float32 scale amax / 448 a row"},
    {"fp8_e5m2_row", "", detail::reference_format(detail::kE5M2, Scaling::row, 0), false,
     "float32 scale amax / 57344 a row"},
    {"int8_row", "", detail::reference_format(detail::kInt8, Scaling::row, 0), false, "float32 scale amax / 127 a row"},
    {"llm_int8", "", detail::reference_format(detail::kInt8, Scaling::int8_outliers, 0), false,
     "int8_row, columns of outliers apart"},
    {"nvfp4", "", detail::reference_format(detail::kE2M1, Scaling::nvfp4, 16), false,
     "blocks of 16: E4M3 scale; float32 scale a tensor"},
}};

/// The formats of weights in checkpoints, under the words of quantization_config: blocks of 32 with E8M0 scales, codes
/// packed with the low bits first.
struct StoredFormat {
  std::string_view method;  // quant_method
  std::string_view name;    // format, quant_algo or dtype; empty if the method alone decides
  ElementFormat element;
};

constexpr int kStoredBlock = 32;
inline constexpr std::array<StoredFormat, 8> kStoredFormats{{
    {"compressed-tensors", "mxfp4-pack-quantized", detail::kE2M1},
    {"compressed-tensors", "mxfp6-pack-quantized", make_float(2, 3)},
    {"compressed-tensors", "mxfp8-quantized", detail::kE4M3},
    {"modelopt", "MXFP8", detail::kE4M3},
    {"quark", "fp4", detail::kE2M1},
    {"quark", "fp6_e2m3", make_float(2, 3)},
    {"quark", "fp6_e3m2", make_float(3, 2)},
    {"mxfp4", "", detail::kE2M1},
}};

struct NamedRule {
  std::string_view name;
  ScaleRule rule;
  std::string_view meaning;
};

inline constexpr std::array<NamedRule, 6> kScaleRules{{
    {"floor", ScaleRule::floor, "floor(log2 amax) - emax (OCP)"},
    {"ceil", ScaleRule::ceil, "one more than floor unless amax is a power of two"},
    {"even", ScaleRule::even, "floor, after rounding amax to the element's mantissa (half up)"},
    {"rceil", ScaleRule::rceil, "ceil(log2(amax / largest element)): nothing saturates"},
    {"ct", ScaleRule::ct, "floor, plus one if amax's mantissa is at least 1.75 (1.9375 for E2M3)"},
    {"mse", ScaleRule::mse, "of floor - 1, floor, floor + 1 the one with the least squared error"},
}};

struct NamedRounding {
  std::string_view name;
  Rounding rounding;
  std::string_view meaning;
};

inline constexpr std::array<NamedRounding, 3> kRoundings{{
    {"even", Rounding::even, "to nearest, ties to even"},
    {"nearest", Rounding::nearest, "to nearest, ties away from zero"},
    {"floor", Rounding::toward_zero, "toward zero"},
}};

// --- names

namespace detail {

/// Reads a decimal number without sign or leading zeros at the start of `text` and removes it; -1 if there is no
/// number.
constexpr int take_number(std::string_view& text) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return -1;
  if (text[0] == '0' && text.size() > 1 && text[1] >= '0' && text[1] <= '9') return -1;
  int value = 0;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    value = value * 10 + (text[0] - '0');
    if (value > 999) return -1;
    text.remove_prefix(1);
  }
  return value;
}

}  // namespace detail

/// The element format of a name: a name or alias of the table, mxeXmY, or mxintN; otherwise nullopt.
constexpr std::optional<ElementFormat> parse_element(std::string_view name) {
  for (const NamedElement& e : kElements) {
    if (name == e.name) return e.format;
    for (const std::string_view alias : e.aliases) {
      if (!alias.empty() && name == alias) return e.format;
    }
  }
  constexpr std::string_view integer_prefix = "mxint";
  constexpr std::string_view float_prefix = "mxe";
  if (name.starts_with(integer_prefix)) {
    name.remove_prefix(integer_prefix.size());
    const int bits = detail::take_number(name);
    if (!name.empty() || bits < kMinIntegerBits || bits > kMaxElementBits) return std::nullopt;
    return make_int(bits);
  }
  if (name.starts_with(float_prefix)) {
    name.remove_prefix(float_prefix.size());
    const int exponent_bits = detail::take_number(name);
    if (exponent_bits < 1 || exponent_bits > kMaxExponentBits || !name.starts_with('m')) return std::nullopt;
    name.remove_prefix(1);
    const int mantissa_bits = detail::take_number(name);
    if (!name.empty() || mantissa_bits < 0 || 1 + exponent_bits + mantissa_bits > kMaxElementBits) return std::nullopt;
    return make_float(exponent_bits, mantissa_bits);
  }
  return std::nullopt;
}

/// The canonical name: the table's name if there is one, else mxeXmY or mxintN. It parses back to the same format.
inline std::string element_name(const ElementFormat& element) {
  for (const NamedElement& e : kElements) {
    if (e.format == element) return std::string(e.name);
  }
  if (element.kind == ElementKind::integer) return "mxint" + std::to_string(element.bits());
  return "mxe" + std::to_string(element.exponent_bits) + "m" + std::to_string(element.mantissa_bits);
}

/// The names that parse_element accepts, for messages.
inline std::string known_elements() {
  std::string text;
  for (const NamedElement& e : kElements) text += std::string(e.name) + ", ";
  return text + "mxeXmY (X 1 to 7, at most 16 bits), mxintN (N 2 to 16)";
}

/// The reference format of a name or alias; otherwise nullopt.
constexpr std::optional<Format> parse_reference_format(std::string_view name) {
  for (const ReferenceFormat& s : kReferenceFormats) {
    if (name == s.name || (!s.alias.empty() && name == s.alias)) return s.format;
  }
  return std::nullopt;
}

/// The reference format of a name, or the block format with default settings of an element's name; otherwise nullopt.
constexpr std::optional<Format> parse_format(std::string_view name) {
  if (const auto stage = parse_reference_format(name)) return stage;
  const auto element = parse_element(name);
  if (!element) return std::nullopt;
  Format f;
  f.element = *element;
  return f;
}

/// The reference format that a format is, whatever its rounding; nullptr for block formats.
constexpr const ReferenceFormat* reference_format_of(const Format& f) {
  for (const ReferenceFormat& s : kReferenceFormats) {
    if (f.scaling == s.format.scaling && f.element == s.format.element) return &s;
  }
  return nullptr;
}

/// The canonical name of a format without its keys: the name of the reference format, or else of the element.
inline std::string format_name(const Format& f) {
  const ReferenceFormat* stage = reference_format_of(f);
  return stage != nullptr ? std::string(stage->name) : element_name(f.element);
}

/// The names that parse_format accepts, for messages.
inline std::string known_formats() {
  std::string text = known_elements() + ", and the stages ";
  for (const ReferenceFormat& s : kReferenceFormats)
    text += (&s == kReferenceFormats.data() ? "" : ", ") + std::string(s.name);
  return text;
}

/// The settings that keys of a variant change.
enum class Key : uint8_t { block, scale_bits, rule, round };

/// True if the key has a meaning in formats of this kind.
constexpr bool takes_key(const Format& f, Key key) {
  const ReferenceFormat* stage = reference_format_of(f);
  return stage == nullptr || (key == Key::round && stage->takes_rounding);
}

constexpr std::string_view rule_name(ScaleRule rule) {
  for (const NamedRule& r : kScaleRules) {
    if (r.rule == rule) return r.name;
  }
  return "?";
}

constexpr std::optional<ScaleRule> parse_rule(std::string_view name) {
  for (const NamedRule& r : kScaleRules) {
    if (r.name == name) return r.rule;
  }
  return std::nullopt;
}

constexpr std::string_view rounding_name(Rounding rounding) {
  for (const NamedRounding& r : kRoundings) {
    if (r.rounding == rounding) return r.name;
  }
  return "?";
}

constexpr std::optional<Rounding> parse_rounding(std::string_view name) {
  for (const NamedRounding& r : kRoundings) {
    if (r.name == name) return r.rounding;
  }
  return std::nullopt;
}

// --- properties of block formats

constexpr int kMinBlock = 8;
constexpr int kMaxBlock = 256;
inline constexpr std::array<int, 5> kScaleBits{4, 5, 6, 8, 16};

constexpr bool valid_block_size(int n) { return n == 0 || (n >= kMinBlock && n <= kMaxBlock); }
constexpr bool valid_scale_bits(int n) {
  for (const int bits : kScaleBits) {
    if (bits == n) return true;
  }
  return false;
}

/// What is wrong with the format, as the end of a sentence; empty if the format is valid.
inline std::string check(const Format& f) {
  if (f.scaling != Scaling::block) return {};
  if (!valid_block_size(f.block_size)) {
    return "block " + std::to_string(f.block_size) + " is neither 0 (the whole row) nor from " +
           std::to_string(kMinBlock) + " to " + std::to_string(kMaxBlock);
  }
  if (!valid_scale_bits(f.scale_bits)) {
    return "scale_bits " + std::to_string(f.scale_bits) + " is not one of 4, 5, 6, 8, 16";
  }
  return {};
}

/// The mantissa bits to which rule `ct` rounds the maximum of a block (half up). As in compressed-tensors, these are
/// FP4's bits (so that 1.75 rounds up) for every format except E2M3, which uses its own three bits (1.9375).
MXLM_HOST_DEVICE constexpr int ct_mantissa_bits(const ElementFormat& e) {
  return e.kind == ElementKind::floating && e.exponent_bits == 2 && e.mantissa_bits == 3 ? 3 : 1;
}

/// The largest scale exponent; the smallest is its negative. A block that needs a larger exponent is NaN; a block that
/// needs a smaller exponent takes the smallest.
MXLM_HOST_DEVICE constexpr int max_scale_exponent(int scale_bits) { return (1 << (scale_bits - 1)) - 1; }

/// True if the values come with a separate float32 scale for each row (of the row itself or of its tensor).
MXLM_HOST_DEVICE constexpr bool has_row_scales(const Format& f) {
  return f.scaling == Scaling::row || f.scaling == Scaling::tensor || f.scaling == Scaling::nvfp4 ||
         f.scaling == Scaling::int8_outliers;
}

/// True if a value depends on more than its own row: on the tensor's largest magnitude, or on outliers.
MXLM_HOST_DEVICE constexpr bool needs_whole_tensor(const Format& f) {
  return f.scaling == Scaling::tensor || f.scaling == Scaling::nvfp4 || f.scaling == Scaling::int8_outliers;
}

/// True if a weight in this format can be kept as codes and block scales of at most a byte each. (A scale for each
/// element would save nothing.)
constexpr bool keeps_codes(const Format& f) {
  return f.element.bits() <= 8 && f.scale_bits <= 8 && f.scaling != Scaling::element;
}

/// The bits of a weight [rows, row] in this format, with all scales.
constexpr uint64_t storage_bits(const Format& f, uint64_t rows, uint64_t row) {
  constexpr uint64_t kFloatScale = 32;
  const uint64_t codes = rows * row * static_cast<uint64_t>(f.element.bits());
  const auto blocks = [&](uint64_t length, uint64_t bits) { return rows * ((row + length - 1) / length) * bits; };
  switch (f.scaling) {
    case Scaling::none:
      return codes;
    case Scaling::block:
      return codes + (row == 0 ? 0
                               : blocks(f.block_size == 0 ? row : static_cast<uint64_t>(f.block_size),
                                        static_cast<uint64_t>(f.scale_bits)));
    case Scaling::element:
      return codes + blocks(1, static_cast<uint64_t>(f.scale_bits));
    case Scaling::row:
    case Scaling::int8_outliers:
      return codes + rows * kFloatScale;
    case Scaling::tensor:
      return codes + kFloatScale;
    case Scaling::nvfp4:
      return codes + blocks(static_cast<uint64_t>(f.block_size), 8) + kFloatScale;
  }
  return codes;
}

/// True if every quantised value (element x scale) is a bfloat16: at most 8 significant bits, scales of at most 8 bits.
/// Scales of has_row_scales are separate from the values and do not count. The only exception is the bottom of
/// bfloat16's range: parts of a value below 2^-133 (the smallest subnormal) are rounded away. A bfloat16 source has no
/// such parts, so for it there is no exception.
MXLM_HOST_DEVICE constexpr bool decodes_exactly_to_bf16(const Format& f) {
  return f.element.mantissa_bits <= 7 && f.scale_bits <= 8;
}

}  // namespace mxlm::mx
