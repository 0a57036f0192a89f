#include "tensor/tensor.hpp"

#include <cassert>
#include <cstring>

namespace mxlm {

RoundedMatrix::RoundedMatrix(const HostMatrix& source) : view_(source) {
  if (source.type == DType::bf16) return;
  assert(source.type == DType::f32 || source.type == DType::f16);
  values_.resize(static_cast<size_t>(source.rows * source.cols));
  const size_t element = dtype_size(source.type);
  size_t at = 0;
  for (int64_t r = 0; r < source.rows; ++r) {
    const std::byte* in = source.data + static_cast<size_t>(r * source.stride) * element;
    for (int64_t c = 0; c < source.cols; ++c, in += element) {
      float value = 0;
      if (source.type == DType::f32) {
        std::memcpy(&value, in, sizeof value);
      } else {
        uint16_t half = 0;
        std::memcpy(&half, in, sizeof half);
        value = half_to_float(half);
      }
      values_[at++] = to_bfloat16(value);
    }
  }
  view_ = {.type = DType::bf16,
           .rows = source.rows,
           .cols = source.cols,
           .stride = source.cols,
           .data = reinterpret_cast<const std::byte*>(values_.data())};
}

}  // namespace mxlm
