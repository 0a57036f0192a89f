#pragma once

// AVX-512 quantising, encoding and decoding of rows; chosen by quantize.cpp. The same bits as mx/quantize.hpp.

#include <cstdint>

#include "mx/format.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu::avx512 {

void quantize_decode_row(const mx::Format& format, const float* in, int64_t n, float* out);
void quantize_decode_row(const mx::Format& format, const float* in, int64_t n, BFloat16* out);
void quantize_decode_row(const mx::Format& format, const BFloat16* in, int64_t n, float* out);
void quantize_decode_row(const mx::Format& format, const BFloat16* in, int64_t n, BFloat16* out);
void quantize_decode_stream(const mx::Format& format, const float* in, int64_t n, float* out);

/// False for what only the portable path packs: codes of more than 8 bits, and blocks that do not start at a byte.
bool packs_fast(const mx::Format& format);
void encode_row(const mx::Format& format, const float* in, int64_t n, uint8_t* codes, uint8_t* scales);
void encode_row(const mx::Format& format, const BFloat16* in, int64_t n, uint8_t* codes, uint8_t* scales);

void decode_row(const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, BFloat16* out);
void decode_row(const mx::Format& format, const uint8_t* codes, const uint8_t* scales, int64_t n, float* out);

}  // namespace mxlm::cpu::avx512
