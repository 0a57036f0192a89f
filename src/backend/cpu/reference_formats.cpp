#include "backend/cpu/reference_formats.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>

#include "backend/cpu/quantize.hpp"
#include "backend/cpu/scratch.hpp"
#include "mx/reference_format.hpp"

namespace mxlm::cpu {
namespace {

using mx::ElementKind;
using mx::Format;
using mx::Scaling;

// The loops below are plain arithmetic on 32-bit lanes, which compilers vectorise; each is compiled twice, for x86-64
// and, inlined into functions of that target, for AVX-512.
#define MXLM_INLINE __attribute__((always_inline)) inline

constexpr uint32_t kSign = 0x80000000U;
constexpr uint32_t kInfinity = 0x7f800000U;

MXLM_INLINE float load(float x) { return x; }
MXLM_INLINE float load(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
/// Values that are bfloat16s already, so nothing is rounded.
MXLM_INLINE void store(float x, float& out) { out = x; }
MXLM_INLINE void store(float x, BFloat16& out) { out.bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }

/// Rounding to nearest even on the grid of a small floating format, saturated: what mx::quantize_decode does under the
/// scale 1.
struct Grid {
  uint32_t mask, half, shift;
  float smallest_normal, magic, max;

  explicit Grid(const mx::ElementFormat& e)
      : mask(~((1U << (23 - e.mantissa_bits)) - 1)),
        half((1U << (22 - e.mantissa_bits)) - 1),
        shift(static_cast<uint32_t>(23 - e.mantissa_bits)),
        smallest_normal(mx::power_of_two(e.emin)),
        magic(mx::power_of_two(23 + e.emin - e.mantissa_bits)),  // one unit in its last place is the subnormals' step
        max(e.max) {}

  /// The rounded |x|, given its bits; NaN stays NaN.
  [[nodiscard]] MXLM_INLINE float operator()(uint32_t magnitude) const {
    const float x = std::bit_cast<float>(magnitude);
    const float normal = std::bit_cast<float>((magnitude + half + ((magnitude >> shift) & 1U)) & mask);
    const float subnormal = (x + magic) - magic;
    const float rounded = x < smallest_normal ? subnormal : normal;
    const float saturated = rounded < max ? rounded : max;
    return magnitude > kInfinity ? std::bit_cast<float>(mx::detail::kQuietNan) : saturated;
  }
};

template <typename In, typename Out>
MXLM_INLINE void cast_fp8(const Grid grid, const In* in, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(load(in[i]));
    const auto value = std::bit_cast<uint32_t>(grid(bits & ~kSign));
    const uint32_t sign = value > kInfinity ? 0 : bits & kSign;
    store(std::bit_cast<float>(value | sign), out[i]);
  }
}

/// To bfloat16; NaN stays NaN.
template <typename In, typename Out>
MXLM_INLINE void cast_bf16(const In* in, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(load(in[i]));
    const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U;
    const uint32_t value = (bits & ~kSign) > kInfinity ? mx::detail::kQuietNan : rounded;
    store(std::bit_cast<float>(value), out[i]);
  }
}

/// Rounds the mantissa alone, up to the largest number's. Returns false if some exponent has no scale (the row is then
/// wrong): magnitudes too small for it, Inf and NaN.
template <typename In, typename Out>
MXLM_INLINE bool round_mantissas(const mx::ElementFormat& e, const In* in, int64_t n, Out* out) {
  const Grid grid(e);
  const uint32_t largest = std::bit_cast<uint32_t>(e.max) & 0x7fffffU;
  const auto smallest = static_cast<uint32_t>(e.emax);  // biased exponent: that of 2^(emax - 127)
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(load(in[i]));
    const uint32_t magnitude = bits & ~kSign;
    const uint32_t field = magnitude >> 23;
    bad |= (magnitude != 0 && (field < smallest || field == 255)) ? 1U : 0U;
    const uint32_t top = (magnitude & kInfinity) | largest;
    const uint32_t rounded = (magnitude + grid.half + ((magnitude >> grid.shift) & 1U)) & grid.mask;
    const uint32_t value = magnitude == 0 ? 0 : std::min(rounded, top);
    store(std::bit_cast<float>(value | (bits & kSign)), out[i]);
  }
  return bad == 0;
}

/// value = round(x / scale) or, for integers, round(x * inverse).
template <typename In, typename Out>
MXLM_INLINE void scale_fp8(const Grid grid, float scale, const In* in, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(load(in[i]) / scale);
    store(std::bit_cast<float>(std::bit_cast<uint32_t>(grid(bits & ~kSign)) | (bits & kSign)), out[i]);
  }
}

template <typename In, typename Out>
MXLM_INLINE void scale_integer(float inverse, float largest, const In* in, int64_t n, Out* out) {
  constexpr float magic = 0x1.8p23F;  // adding it rounds to whole numbers, ties to even
  for (int64_t i = 0; i < n; ++i) {
    const float rounded = (load(in[i]) * inverse + magic) - magic;
    const float value = rounded > largest ? largest : rounded < -largest ? -largest : rounded;
    store(value + 0.0F, out[i]);
  }
}

template <typename In>
MXLM_INLINE uint32_t largest_plain(const In* in, int64_t n, bool inliers) {
  const uint32_t threshold = inliers ? std::bit_cast<uint32_t>(mx::kOutlierThreshold) : UINT32_MAX;
  uint32_t amax = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(load(in[i])) & ~kSign;
    const bool outlier = magnitude >= threshold && magnitude <= kInfinity;
    const uint32_t seen = outlier ? 0 : magnitude;
    amax = seen > amax ? seen : amax;
  }
  return amax;
}

/// E2M1 in blocks of 16 under E4M3 scales. Blocks of zeros divide nothing.
template <typename In, typename Out>
MXLM_INLINE void scale_nvfp4(const Format& f, const Grid grid, float outer, const In* in, int64_t n, Out* out) {
  for (int64_t start = 0; start < n; start += f.block_size) {
    const int64_t length = std::min<int64_t>(f.block_size, n - start);
    const float block = mx::nvfp4_block_scale(f, outer, largest_plain(in + start, length, false));
    const float inverse = 1.0F / outer / block;
    for (int64_t i = start; i < start + length; ++i) {
      const float x = load(in[i]);
      const auto bits = std::bit_cast<uint32_t>(x == 0 ? 0.0F : x * inverse);
      const float value = grid(bits & ~kSign) * block;
      store(std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (std::bit_cast<uint32_t>(x) & kSign)), out[i]);
    }
  }
}

#define MXLM_STAGE_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))

// Each loop for AVX-512.
template <typename In, typename Out>
MXLM_STAGE_AVX512 void cast_fp8_avx512(const Grid& grid, const In* in, int64_t n, Out* out) {
  cast_fp8(grid, in, n, out);
}
template <typename In, typename Out>
MXLM_STAGE_AVX512 void cast_bf16_avx512(const In* in, int64_t n, Out* out) {
  cast_bf16(in, n, out);
}
template <typename In, typename Out>
MXLM_STAGE_AVX512 bool round_mantissas_avx512(const mx::ElementFormat& e, const In* in, int64_t n, Out* out) {
  return round_mantissas(e, in, n, out);
}
template <typename In, typename Out>
MXLM_STAGE_AVX512 void scale_fp8_avx512(const Grid& grid, float scale, const In* in, int64_t n, Out* out) {
  scale_fp8(grid, scale, in, n, out);
}
template <typename In, typename Out>
MXLM_STAGE_AVX512 void scale_integer_avx512(float inverse, float largest, const In* in, int64_t n, Out* out) {
  scale_integer(inverse, largest, in, n, out);
}
template <typename In, typename Out>
MXLM_STAGE_AVX512 void scale_nvfp4_avx512(const Format& f, const Grid& grid, float outer, const In* in, int64_t n,
                                          Out* out) {
  scale_nvfp4(f, grid, outer, in, n, out);
}
template <typename In>
MXLM_STAGE_AVX512 uint32_t largest_avx512(const In* in, int64_t n, bool inliers) {
  return largest_plain(in, n, inliers);
}

bool has_avx512(Isa isa) { return isa >= Isa::avx512; }

template <typename In, typename Out>
void cast_exactly(const Format& f, const In* in, int64_t n, Out* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float x = load(in[i]);
    float y = 0;
    if (f.scaling == Scaling::none) {
      y = mx::cast_decode(f, x);
    } else {
      mx::quantize_decode_block(f, &x, 1, &y);
    }
    if constexpr (sizeof(Out) == 2) {
      out[i] = to_bfloat16(y);
    } else {
      out[i] = y;
    }
  }
}

template <typename In, typename Out>
void cast(Isa isa, const Format& f, const In* in, int64_t n, Out* out) {
  if (f.rounding != mx::Rounding::even) return cast_exactly(f, in, n, out);
  if (f.scaling == Scaling::none && f.element == mx::make_bfloat16()) {
    return has_avx512(isa) ? cast_bf16_avx512(in, n, out) : cast_bf16(in, n, out);
  }
  if (f.scaling == Scaling::none) {
    const Grid grid(f.element);
    return has_avx512(isa) ? cast_fp8_avx512(grid, in, n, out) : cast_fp8(grid, in, n, out);
  }
  // A row cannot be done again once it has been overwritten.
  if (static_cast<const void*>(in) == static_cast<const void*>(out)) return cast_exactly(f, in, n, out);
  const bool done =
      has_avx512(isa) ? round_mantissas_avx512(f.element, in, n, out) : round_mantissas(f.element, in, n, out);
  if (!done) cast_exactly(f, in, n, out);
}

template <typename In, typename Out>
void scale(Isa isa, const Format& f, OuterScale outer, const uint8_t* outlier, const In* in, int64_t n, Out* out) {
  assert(mx::has_row_scales(f));
  if (mx::degenerate_scale(outer.scale)) {
    std::fill_n(out, n, Out{});
    return;
  }
  if (f.scaling == Scaling::nvfp4) {
    const Grid grid(f.element);
    has_avx512(isa) ? scale_nvfp4_avx512(f, grid, outer.scale, in, n, out)
                    : scale_nvfp4(f, grid, outer.scale, in, n, out);
  } else if (f.element.kind == ElementKind::integer) {
    const auto largest = static_cast<float>((1 << (f.element.bits() - 1)) - 1);
    const float inverse = 1.0F / std::bit_cast<float>(outer.amax) * largest;
    if (std::bit_cast<uint32_t>(inverse) >= kInfinity) {  // magnitudes so small that the quotient is Inf
      std::fill_n(out, n, Out{});
    } else if (has_avx512(isa)) {
      scale_integer_avx512(inverse, largest, in, n, out);
    } else {
      scale_integer(inverse, largest, in, n, out);
    }
  } else {
    const Grid grid(f.element);
    has_avx512(isa) ? scale_fp8_avx512(grid, outer.scale, in, n, out) : scale_fp8(grid, outer.scale, in, n, out);
  }
  if (outlier == nullptr) return;
  for (int64_t i = 0; i < n; ++i) {
    if (outlier[i] != 0) out[i] = Out{};
  }
}

template <typename In>
bool mark(const In* in, int64_t n, uint8_t* flags) {
  bool any = false;
  for (int64_t i = 0; i < n; ++i) {
    const bool outlier = mx::is_outlier(load(in[i]));
    flags[i] = static_cast<uint8_t>(flags[i] | (outlier ? 1 : 0));
    any |= outlier;
  }
  return any;
}

/// The exponent under which the values of a stage are codes.
int code_exponent(const Format& f) { return f.element.kind == ElementKind::integer ? f.element.mantissa_bits : 0; }

uint32_t code_of(const Format& f, float value) {
  if (value != value) return (1U << (f.element.bits() - 1)) - 1;  // all ones but the sign: NaN in both FP8 formats
  return mx::encode(f.element, mx::Rounding::even, code_exponent(f), value);
}

template <typename In>
void encode(Isa isa, const Format& f, OuterScale outer, const In* in, int64_t n, uint8_t* codes, uint8_t* scales) {
  assert(mx::keeps_codes(f) && f.scaling != Scaling::block);
  const int bits = f.element.bits();
  thread_local Scratch scratch;
  auto* values =
      reinterpret_cast<float*>(scratch.reserve(static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(float)));
  std::memset(codes, 0, static_cast<size_t>(code_bytes(f, n)));
  if (f.scaling == Scaling::nvfp4) {
    const bool degenerate = mx::degenerate_scale(outer.scale);
    for (int64_t start = 0; start < n; start += f.block_size) {
      const int64_t length = std::min<int64_t>(f.block_size, n - start);
      const float block = mx::nvfp4_block_scale(f, outer.scale, largest_plain(in + start, length, false));
      *scales++ = degenerate ? 0 : static_cast<uint8_t>(mx::encode(mx::detail::kE4M3, mx::Rounding::even, 0, block));
      for (int64_t i = start; i < start + length && !degenerate; ++i) {
        mx::put_code(codes, bits, i, code_of(f, mx::nvfp4_element(f, outer.scale, block, load(in[i]))));
      }
    }
    return;
  }
  if (mx::has_row_scales(f)) {
    scale(isa, f, outer, nullptr, in, n, values);
  } else {
    cast(isa, f, in, n, values);
  }
  for (int64_t i = 0; i < n; ++i) mx::put_code(codes, bits, i, code_of(f, values[i]));
}

/// Values of all codes of an element format under the exponent that its stage uses.
class CodeTable {
 public:
  const std::array<float, 256>& of(const Format& f) {
    if (element_ != f.element) {
      element_ = f.element;
      for (uint32_t code = 0; code < (1U << f.element.bits()); ++code) {
        values_[code] = mx::scale_by(mx::decode(f.element, code), code_exponent(f));
      }
    }
    return values_;
  }

 private:
  mx::ElementFormat element_;
  std::array<float, 256> values_{};
};

template <typename Out>
void decode(const Format& f, const uint8_t* codes, const uint8_t* scales, int64_t n, Out* out) {
  assert(mx::keeps_codes(f) && f.scaling != Scaling::block);
  thread_local CodeTable elements;
  thread_local CodeTable block_scales;
  const std::array<float, 256>& table = elements.of(f);
  const int bits = f.element.bits();
  if (f.scaling != Scaling::nvfp4) {
    for (int64_t i = 0; i < n; ++i) store(table[mx::get_code(codes, bits, i)], out[i]);
    return;
  }
  Format scale_format;
  scale_format.element = mx::detail::kE4M3;
  const std::array<float, 256>& scale_table = block_scales.of(scale_format);
  for (int64_t start = 0; start < n; start += f.block_size) {
    const float block = scale_table[*scales++];
    const int64_t end = std::min<int64_t>(start + f.block_size, n);
    for (int64_t i = start; i < end; ++i) store(table[mx::get_code(codes, bits, i)] * block, out[i]);
  }
}

template <typename T>
void quantize_in_place(Isa isa, const Format& f, int64_t n, T* row) {
  assert(!mx::needs_whole_tensor(f));
  if (!mx::has_row_scales(f) && (sizeof(T) == 4 || mx::decodes_exactly_to_bf16(f))) {
    quantize_decode_row(isa, f, row, n, row);
    return;
  }
  thread_local Scratch scratch;
  auto* values =
      reinterpret_cast<float*>(scratch.reserve(static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(float)));
  float factor = 1;
  if (mx::has_row_scales(f)) {
    OuterScale outer{.scale = 0, .amax = largest_magnitude(isa, row, n, /*inliers=*/false)};
    outer.scale = factor = mx::outer_scale(f, outer.amax);
    quantize_scaled_row(isa, f, outer, nullptr, row, n, values);
  } else {
    quantize_decode_row(isa, f, row, n, values);
  }
  for (int64_t i = 0; i < n; ++i) {
    const float value = values[i] * factor;
    if constexpr (sizeof(T) == 2) {
      row[i] = to_bfloat16(value);
    } else {
      row[i] = value;
    }
  }
}

}  // namespace

void quantize_row_in_place(Isa isa, const Format& format, int64_t n, float* row) {
  quantize_in_place(isa, format, n, row);
}
void quantize_row_in_place(Isa isa, const Format& format, int64_t n, BFloat16* row) {
  quantize_in_place(isa, format, n, row);
}

void cast_row(Isa isa, const Format& format, const float* in, int64_t n, float* out) { cast(isa, format, in, n, out); }
void cast_row(Isa isa, const Format& format, const float* in, int64_t n, BFloat16* out) {
  cast(isa, format, in, n, out);
}
void cast_row(Isa isa, const Format& format, const BFloat16* in, int64_t n, float* out) {
  cast(isa, format, in, n, out);
}
void cast_row(Isa isa, const Format& format, const BFloat16* in, int64_t n, BFloat16* out) {
  cast(isa, format, in, n, out);
}

uint32_t largest_magnitude(Isa isa, const float* in, int64_t n, bool inliers) {
  return has_avx512(isa) ? largest_avx512(in, n, inliers) : largest_plain(in, n, inliers);
}
uint32_t largest_magnitude(Isa isa, const BFloat16* in, int64_t n, bool inliers) {
  return has_avx512(isa) ? largest_avx512(in, n, inliers) : largest_plain(in, n, inliers);
}

bool mark_outliers(const float* in, int64_t n, uint8_t* flags) { return mark(in, n, flags); }
bool mark_outliers(const BFloat16* in, int64_t n, uint8_t* flags) { return mark(in, n, flags); }

void quantize_scaled_row(Isa isa, const Format& format, OuterScale outer, const uint8_t* outlier, const float* in,
                         int64_t n, float* out) {
  scale(isa, format, outer, outlier, in, n, out);
}
void quantize_scaled_row(Isa isa, const Format& format, OuterScale outer, const uint8_t* outlier, const float* in,
                         int64_t n, BFloat16* out) {
  scale(isa, format, outer, outlier, in, n, out);
}
void quantize_scaled_row(Isa isa, const Format& format, OuterScale outer, const uint8_t* outlier, const BFloat16* in,
                         int64_t n, float* out) {
  scale(isa, format, outer, outlier, in, n, out);
}
void quantize_scaled_row(Isa isa, const Format& format, OuterScale outer, const uint8_t* outlier, const BFloat16* in,
                         int64_t n, BFloat16* out) {
  scale(isa, format, outer, outlier, in, n, out);
}

int64_t stage_scale_bytes(const Format& format, int64_t n) {
  return format.scaling == Scaling::nvfp4 ? mx::block_count(format, n) : 0;
}

void encode_stage_row(Isa isa, const Format& format, OuterScale outer, const float* in, int64_t n, uint8_t* codes,
                      uint8_t* scales) {
  encode(isa, format, outer, in, n, codes, scales);
}
void encode_stage_row(Isa isa, const Format& format, OuterScale outer, const BFloat16* in, int64_t n, uint8_t* codes,
                      uint8_t* scales) {
  encode(isa, format, outer, in, n, codes, scales);
}
void decode_stage_row(const Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, float* out) {
  decode(format, codes, scales, n, out);
}
void decode_stage_row(const Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, BFloat16* out) {
  decode(format, codes, scales, n, out);
}

}  // namespace mxlm::cpu
