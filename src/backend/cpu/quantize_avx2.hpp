#pragma once

// AVX2 quantising of rows; chosen by quantize.cpp. The same bits as mx/quantize.hpp.

#include <cstdint>

#include "mx/format.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cpu::avx2 {

/// In and Out: float or BFloat16.
template <typename In, typename Out>
void quantize_decode_row(const mx::Format& format, const In* in, int64_t n, Out* out);

}  // namespace mxlm::cpu::avx2
