// Compiled, not run: the headers of src/mx must stay usable in device code. Each kernel instantiates the scalar
// definition of quantising and packing, as a GPU backend would use it.
#include <cstdint>

#include "mx/quantize.hpp"

__global__ void quantize_decode_rows(mxlm::mx::BlockFormat format, const float* x, float* out, int64_t blocks) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (block >= blocks) return;
  const int64_t offset = block * format.block_size;
  mxlm::mx::quantize_decode_block(format, x + offset, format.block_size, out + offset);
}

__global__ void encode_rows(mxlm::mx::BlockFormat format, const float* x, uint8_t* packed, uint8_t* scales,
                            int64_t blocks) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (block >= blocks) return;
  const float* from = x + block * format.block_size;
  const int e = mxlm::mx::block_exponent(format, from, format.block_size);
  scales[block] = mxlm::mx::scale_code(e);
  for (int64_t i = 0; i < format.block_size; ++i) {
    const uint32_t code = mxlm::mx::encode(format.element, format.rounding, e, from[i]);
    mxlm::mx::put_code(packed + block * mxlm::mx::packed_bytes(format.element, format.block_size),
                       format.element.bits(), i, code);
  }
}
