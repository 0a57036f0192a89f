#pragma once

// Rows of the stages that Microscaling is compared with (mx/reference_format.hpp). Every instruction set gives the same
// bits.

#include <cstdint>

#include "backend/cpu/isa.hpp"
#include "mx/format.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

/// Quantises and decodes a row of a format without scales or with one for each element. `out` may be `in`; bfloat16 for
/// `out` needs mx::decodes_exactly_to_bf16.
void cast_row(Isa isa, const mx::Format& format, const float* in, int64_t n, float* out);
void cast_row(Isa isa, const mx::Format& format, const float* in, int64_t n, BFloat16* out);
void cast_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, float* out);
void cast_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, BFloat16* out);

/// The bits of the largest magnitude in a row (NaN counts as largest); with `inliers`, among those that are no outliers
/// (mx::is_outlier).
uint32_t largest_magnitude(Isa isa, const float* in, int64_t n, bool inliers);
uint32_t largest_magnitude(Isa isa, const BFloat16* in, int64_t n, bool inliers);

/// Sets the flags of the columns in which this row has an outlier; returns whether there is one.
bool mark_outliers(const float* in, int64_t n, uint8_t* flags);
bool mark_outliers(const BFloat16* in, int64_t n, uint8_t* flags);

/// What shares a float32 scale: see mx::quantize_scaled_row.
struct OuterScale {
  float scale = 1;
  uint32_t amax = 0;
};

/// Quantises a row of a format with row scales, without multiplying by its scale. `outlier`, if not null, has a flag
/// for each column to leave out.
void quantize_scaled_row(Isa isa, const mx::Format& format, OuterScale outer, const uint8_t* outlier, const float* in,
                         int64_t n, float* out);
void quantize_scaled_row(Isa isa, const mx::Format& format, OuterScale outer, const uint8_t* outlier, const float* in,
                         int64_t n, BFloat16* out);
void quantize_scaled_row(Isa isa, const mx::Format& format, OuterScale outer, const uint8_t* outlier,
                         const BFloat16* in, int64_t n, float* out);
void quantize_scaled_row(Isa isa, const mx::Format& format, OuterScale outer, const uint8_t* outlier,
                         const BFloat16* in, int64_t n, BFloat16* out);

/// Bytes of the E4M3 scales of a row of n values (0 where there are none).
int64_t stage_scale_bytes(const mx::Format& format, int64_t n);
/// Quantises and decodes a row of any format that does not look at a whole tensor, all scales multiplied in, and rounds
/// to the row's type.
void quantize_row_in_place(Isa isa, const mx::Format& format, int64_t n, float* row);
void quantize_row_in_place(Isa isa, const mx::Format& format, int64_t n, BFloat16* row);

/// The codes and E4M3 scales of a row of a stage that mx::keeps_codes (code_bytes, stage_scale_bytes) / their values,
/// to the bits that cast_row or quantize_scaled_row gives.
void encode_stage_row(Isa isa, const mx::Format& format, OuterScale outer, const float* in, int64_t n, uint8_t* codes,
                      uint8_t* scales);
void encode_stage_row(Isa isa, const mx::Format& format, OuterScale outer, const BFloat16* in, int64_t n,
                      uint8_t* codes, uint8_t* scales);
void decode_stage_row(const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, float* out);
void decode_stage_row(const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, BFloat16* out);

}  // namespace mxlm::cpu
