// What is done to a product's sums where the matrix product does not do it itself.

#include <cuda_bf16.h>

#include "backend/cuda/products.hpp"

namespace mxlm::cuda {
namespace {

constexpr int kThreads = 256;

__device__ void store(float value, float* out) { *out = value; }
__device__ void store(float value, __nv_bfloat16* out) { *out = __float2bfloat16_rn(value); }

template <typename T>
__global__ void scale_kernel(const float* sums, int64_t sums_stride, const float* row_scales, const float* outliers,
                             int64_t outliers_stride, const float* column_scales, const float* bias, T* out,
                             int64_t out_stride, int64_t cols) {
  const int64_t r = blockIdx.x;
  const float row = row_scales == nullptr ? 1.0F : row_scales[r];
  for (int64_t c = blockIdx.y * int64_t{kThreads} + threadIdx.x; c < cols; c += int64_t{kThreads} * gridDim.y) {
    float value = sums[r * sums_stride + c] * row;
    if (outliers != nullptr) value += outliers[r * outliers_stride + c];
    if (column_scales != nullptr) value *= column_scales[c];
    if (bias != nullptr) value += bias[c];
    store(value, out + r * out_stride + c);
  }
}

template <typename Word>
__global__ void compare_kernel(const Word* a, int64_t a_stride, const Word* b, int64_t b_stride, int64_t cols,
                               int32_t* differ) {
  const int64_t r = blockIdx.x;
  bool differs = false;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) differs |= a[r * a_stride + c] != b[r * b_stride + c];
  if (__syncthreads_or(differs) != 0 && threadIdx.x == 0) *differ = 1;
}

__global__ void bias_kernel(const float* in, __nv_bfloat16* out, int64_t n) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i < n) out[i] = __float2bfloat16_rn(in[i]);
}

}  // namespace

void scale_sums(const View& sums, const float* row_scales, const View& outliers, const float* column_scales,
                const float* bias, const View& out, cudaStream_t stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const auto across = static_cast<unsigned>((out.cols + 4 * kThreads - 1) / (4 * kThreads));
  const dim3 grid(static_cast<unsigned>(out.rows), across > 64 ? 64 : across);
  if (out.type == DType::bf16) {
    scale_kernel<<<grid, kThreads, 0, stream>>>(sums.as<float>(), sums.stride, row_scales, outliers.as<float>(),
                                                outliers.stride, column_scales, bias, out.as<__nv_bfloat16>(),
                                                out.stride, out.cols);
  } else {
    scale_kernel<<<grid, kThreads, 0, stream>>>(sums.as<float>(), sums.stride, row_scales, outliers.as<float>(),
                                                outliers.stride, column_scales, bias, out.as<float>(), out.stride,
                                                out.cols);
  }
  check_launch("scaling a product");
}

bool has_code_for_this_device() {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, bias_kernel) == cudaSuccess;
}

bool same_bits(const View& a, const View& b, int32_t* scratch, cudaStream_t stream) {
  check(cudaMemsetAsync(scratch, 0, sizeof *scratch, stream), "comparing products");
  const auto blocks = static_cast<unsigned>(a.rows);
  if (dtype_size(a.type) == 2) {
    compare_kernel<<<blocks, kThreads, 0, stream>>>(a.as<uint16_t>(), a.stride, b.as<uint16_t>(), b.stride, a.cols,
                                                    scratch);
  } else {
    compare_kernel<<<blocks, kThreads, 0, stream>>>(a.as<uint32_t>(), a.stride, b.as<uint32_t>(), b.stride, a.cols,
                                                    scratch);
  }
  check_launch("comparing products");
  int32_t differ = 0;
  check(cudaMemcpyAsync(&differ, scratch, sizeof differ, cudaMemcpyDeviceToHost, stream), "comparing products");
  check(cudaStreamSynchronize(stream), "comparing products");
  return differ == 0;
}

void convert_bias(const float* in, void* out, int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  bias_kernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      in, static_cast<__nv_bfloat16*>(out), n);
  check_launch("converting a bias");
}

}  // namespace mxlm::cuda
