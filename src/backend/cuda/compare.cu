// Sums over rows of two tensors, in double, in an order that depends on the number of columns alone.

#include <cassert>
#include <vector>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/rows.cuh"

namespace mxlm {
namespace cuda {
namespace {

/// For thread 0: the sum over the block.
__device__ double block_sum(double value, double* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  __syncthreads();  // what was there has been read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kThreads / 32; ++w) sum += shared[w];
  return sum;
}

/// A block a row.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    compare_rows(const __grid_constant__ Rows reference, const __grid_constant__ Rows other, ErrorSums* sums) {
  __shared__ double shared[kThreads / 32];
  const int64_t r = blockIdx.x;
  double a2 = 0, b2 = 0, d2 = 0;
  for (int64_t c = static_cast<int64_t>(threadIdx.x) * kChunk; c < reference.cols; c += int64_t{kThreads} * kChunk) {
    float a[kChunk];
    float b[kChunk];
    load_chunk<T>(reference, r, c, a);
    load_chunk<T>(other, r, c, b);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const auto x = static_cast<double>(a[i]);
      const auto y = static_cast<double>(b[i]);
      a2 += x * x;
      b2 += y * y;
      d2 += (y - x) * (y - x);
    }
  }
  a2 = block_sum(a2, shared);
  b2 = block_sum(b2, shared);
  d2 = block_sum(d2, shared);
  if (threadIdx.x != 0) return;
  sums[r].reference = a2;
  sums[r].other = b2;
  sums[r].difference = d2;
}

}  // namespace
}  // namespace cuda

void CudaBackend::compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) {
  assert(reference.dtype() == other.dtype() && reference.cols() == other.cols());
  assert(reference.rows() == other.rows() && static_cast<int64_t>(rows.size()) == reference.rows());
  if (rows.empty()) return;
  const auto memory = scratch(rows.size_bytes());
  auto* sums = static_cast<ErrorSums*>(memory.get());
  const cuda::Rows a = cuda::make_rows(cuda::view(reference));
  const cuda::Rows b = cuda::make_rows(cuda::view(other));
  const auto blocks = static_cast<unsigned>(rows.size());
  if (reference.dtype() == DType::bf16) {
    cuda::compare_rows<BFloat16><<<blocks, cuda::kThreads, 0, stream()>>>(a, b, sums);
  } else {
    cuda::compare_rows<float><<<blocks, cuda::kThreads, 0, stream()>>>(a, b, sums);
  }
  cuda::check_launch("comparing activations");
  to_host(rows.data(), sums, rows.size_bytes());
}

}  // namespace mxlm
