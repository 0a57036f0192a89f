#pragma once

// AVX-512 quantising of rows; chosen by quantize.cpp. The same bits as mx/quantize.hpp.

#include <cstdint>

#include "mx/format.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu::avx512 {

/// False for what only the portable path does (scale rule mse).
bool supports(const mx::BlockFormat& format);

void quantize_decode_row(const mx::BlockFormat& format, const float* in, int64_t n, float* out);
void quantize_decode_row(const mx::BlockFormat& format, const float* in, int64_t n, BFloat16* out);
void quantize_decode_row(const mx::BlockFormat& format, const BFloat16* in, int64_t n, float* out);
void quantize_decode_row(const mx::BlockFormat& format, const BFloat16* in, int64_t n, BFloat16* out);
void quantize_decode_stream(const mx::BlockFormat& format, const float* in, int64_t n, float* out);

}  // namespace mxlm::cpu::avx512
