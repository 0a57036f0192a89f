// What is done to a product's sums where the matrix product does not do it itself.

#include <cuda_bf16.h>

#include <cassert>

#include "backend/cuda/products.hpp"

namespace mxlm::cuda {
namespace {

constexpr int kThreads = 256;

__device__ void store(float value, float* out) { *out = value; }
__device__ void store(float value, __nv_bfloat16* out) { *out = __float2bfloat16_rn(value); }

/// Four values, or fewer at a row's end.
struct Four {
  float at[4];
};

/// `whole`: `from` is aligned and has four values; else it has `left` of them, and zeros follow.
__device__ Four load_four(const float* from, bool whole, int64_t left) {
  if (whole) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    return {{four.x, four.y, four.z, four.w}};
  }
  Four out;
#pragma unroll
  for (int i = 0; i < 4; ++i) out.at[i] = i < left ? from[i] : 0.0F;
  return out;
}

__device__ void store_four(const Four& x, float* to) {
  *reinterpret_cast<float4*>(to) = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
}
__device__ void store_four(const Four& x, __nv_bfloat16* to) {
  __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(x.at[0], x.at[1]), __floats2bfloat162_rn(x.at[2], x.at[3])};
  *reinterpret_cast<uint2*>(to) =
      make_uint2(*reinterpret_cast<uint32_t*>(&pairs[0]), *reinterpret_cast<uint32_t*>(&pairs[1]));
}

/// Four columns a thread; `vector`: every array and row is aligned to four values.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(const float* sums, int64_t sums_stride, const __grid_constant__ Scales scales, T* out,
                 int64_t out_stride, int64_t cols, bool vector) {
  const int64_t r = blockIdx.x;
  const float row = scales.rows == nullptr ? 1.0F : scales.rows[r];
  const float row_power = scales.powers.rows == nullptr ? 1.0F : scales.powers.rows[r];
  const float* outliers = scales.outliers.data == nullptr
                              ? nullptr
                              : static_cast<const float*>(scales.outliers.data) + r * scales.outliers.stride;
  const int64_t step = int64_t{kThreads} * 4 * gridDim.y;
  for (int64_t c = (blockIdx.y * int64_t{kThreads} + threadIdx.x) * 4; c < cols; c += step) {
    const int64_t left = cols - c;
    const bool whole = vector && left >= 4;
    Four x = load_four(sums + r * sums_stride + c, whole, left);
    if (scales.powers.columns != nullptr) {
      const Four power = load_four(scales.powers.columns + c, whole, left);
#pragma unroll
      for (int i = 0; i < 4; ++i) x.at[i] = times_powers(x.at[i], row_power, power.at[i]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) x.at[i] *= row;
    if (outliers != nullptr) {
      const Four more = load_four(outliers + c, whole, left);
#pragma unroll
      for (int i = 0; i < 4; ++i) x.at[i] += more.at[i];
    }
    if (scales.columns != nullptr) {
      const Four scale = load_four(scales.columns + c, whole, left);
#pragma unroll
      for (int i = 0; i < 4; ++i) x.at[i] *= scale.at[i];
    }
    if (scales.bias != nullptr) {
      const Four bias = load_four(scales.bias + c, whole, left);
#pragma unroll
      for (int i = 0; i < 4; ++i) x.at[i] += bias.at[i];
    }
    T* to = out + r * out_stride + c;
    if (whole) {
      store_four(x, to);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i < left) store(x.at[i], to + i);
      }
    }
  }
}

/// True if rows of four-byte values, or of narrower ones, can be read four at a time.
bool in_fours(const void* data, int64_t stride, DType type = DType::f32) {
  return reinterpret_cast<uintptr_t>(data) % (4 * dtype_size(type)) == 0 && stride % 4 == 0;
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

void scale_sums(const View& sums, const Scales& scales, const View& out, cudaStream_t stream) {
  assert((scales.powers.rows == nullptr) == (scales.powers.columns == nullptr));
  if (out.rows == 0 || out.cols == 0) return;
  const auto across = static_cast<unsigned>((out.cols + 4 * kThreads - 1) / (4 * kThreads));
  const dim3 grid(static_cast<unsigned>(out.rows), across > 64 ? 64 : across);
  const bool vector = in_fours(sums.data, sums.stride) && in_fours(out.data, out.stride, out.type) &&
                      in_fours(scales.outliers.data, scales.outliers.stride) && in_fours(scales.powers.columns, 0) &&
                      in_fours(scales.columns, 0) && in_fours(scales.bias, 0);
  if (out.type == DType::bf16) {
    scale_kernel<<<grid, kThreads, 0, stream>>>(sums.as<float>(), sums.stride, scales, out.as<__nv_bfloat16>(),
                                                out.stride, out.cols, vector);
  } else {
    scale_kernel<<<grid, kThreads, 0, stream>>>(sums.as<float>(), sums.stride, scales, out.as<float>(), out.stride,
                                                out.cols, vector);
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
