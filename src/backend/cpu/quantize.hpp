#pragma once

// Quantising rows on the CPU. Every instruction set gives the bits of mx/quantize.hpp.

#include <cstdint>

#include "backend/cpu/isa.hpp"
#include "mx/format.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu {

/// Quantises a row of n values in blocks along it (the last one may be short) and decodes it. A block with a NaN or an
/// Inf, or whose scale has no code, becomes quiet NaNs. `out` may be `in`. Values stored as bfloat16 need
/// mx::decodes_exactly_to_bf16(format). Stages without row scales are taken, too (see stages.hpp).
void quantize_decode_row(Isa isa, const mx::Format& format, const float* in, int64_t n, float* out);
void quantize_decode_row(Isa isa, const mx::Format& format, const float* in, int64_t n, BFloat16* out);
void quantize_decode_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, float* out);
void quantize_decode_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, BFloat16* out);

/// As quantize_decode_row, for a result larger than the caches that is not read again soon: it is written past them
/// (AVX-512, blocks of 32, `out` 64-byte aligned; otherwise an ordinary write).
void quantize_decode_stream(Isa isa, const mx::Format& format, const float* in, int64_t n, float* out);

/// Bytes of the codes and of the scales of a row of n values.
int64_t code_bytes(const mx::Format& format, int64_t n);
int64_t scale_bytes(const mx::Format& format, int64_t n);

/// Quantises a row into codes (low bits first, one after the other; code_bytes) and E8M0 scales, one a block
/// (scale_bytes). For formats of block scaling with at most 8 scale bits. A NaN block has scale 255 and codes 0.
void encode_row(Isa isa, const mx::Format& format, const float* in, int64_t n, uint8_t* codes, uint8_t* scales);
void encode_row(Isa isa, const mx::Format& format, const BFloat16* in, int64_t n, uint8_t* codes, uint8_t* scales);

/// Decodes what encode_row made. Into bfloat16 for formats that mx::decodes_exactly_to_bf16.
void decode_row(Isa isa, const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n,
                BFloat16* out);
void decode_row(Isa isa, const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, float* out);

}  // namespace mxlm::cpu
