// Sums over rows of two tensors, in double, in an order that depends on the number of columns alone.

#include <algorithm>
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
    float x2 = 0, y2 = 0, e2 = 0;  // conversions to double are slow: one for eight terms
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float e = b[i] - a[i];
      x2 = fmaf(a[i], a[i], x2);
      y2 = fmaf(b[i], b[i], y2);
      e2 = fmaf(e, e, e2);
    }
    a2 += x2;
    b2 += y2;
    d2 += e2;
  }
  a2 = block_sum(a2, shared);
  b2 = block_sum(b2, shared);
  d2 = block_sum(d2, shared);
  if (threadIdx.x != 0) return;
  sums[r].reference = a2;
  sums[r].other = b2;
  sums[r].difference = d2;
}

/// A block a window: the sums of its rows, in an order that depends on how many there are alone.
__global__ void __launch_bounds__(kThreads)
    add_windows(const ErrorSums* rows, const int64_t* window_offsets, ErrorSums* sums) {
  __shared__ double shared[kThreads / 32];
  const int64_t begin = window_offsets[blockIdx.x], end = window_offsets[blockIdx.x + 1];
  double a2 = 0, b2 = 0, d2 = 0;
  for (int64_t r = begin + threadIdx.x; r < end; r += kThreads) {
    a2 += rows[r].reference;
    b2 += rows[r].other;
    d2 += rows[r].difference;
  }
  a2 = block_sum(a2, shared);
  b2 = block_sum(b2, shared);
  d2 = block_sum(d2, shared);
  if (threadIdx.x != 0) return;
  sums[blockIdx.x].reference = a2;
  sums[blockIdx.x].other = b2;
  sums[blockIdx.x].difference = d2;
}

/// Sums of windows that wait on the device at most.
constexpr size_t kPendingSums = 65536;

void compare_rows_of(const View& reference, const View& other, ErrorSums* sums, cudaStream_t stream) {
  const Rows a = make_rows(reference), b = make_rows(other);
  const auto blocks = static_cast<unsigned>(reference.rows);
  if (reference.type == DType::bf16) {
    compare_rows<BFloat16><<<blocks, kThreads, 0, stream>>>(a, b, sums);
  } else {
    compare_rows<float><<<blocks, kThreads, 0, stream>>>(a, b, sums);
  }
  check_launch("comparing activations");
}

}  // namespace
}  // namespace cuda

void CudaBackend::compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) {
  assert(reference.dtype() == other.dtype() && reference.cols() == other.cols());
  assert(reference.rows() == other.rows() && static_cast<int64_t>(rows.size()) == reference.rows());
  if (rows.empty()) return;
  const auto memory = scratch(rows.size_bytes());
  auto* sums = static_cast<ErrorSums*>(memory.get());
  cuda::compare_rows_of(cuda::view(reference), cuda::view(other), sums, stream());
  to_host(rows.data(), sums, rows.size_bytes());
}

void CudaBackend::compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> window_offsets,
                                  std::span<ErrorSums> sums) {
  assert(window_offsets.size() == sums.size() + 1 && window_offsets.back() == reference.rows());
  if (sums.empty()) return;
  if (sums.size() > cuda::kPendingSums) {
    std::vector<ErrorSums> of_rows(static_cast<size_t>(reference.rows()));
    compare(reference, other, of_rows);
    return sum_by_window(of_rows, window_offsets, sums);
  }
  if (sums_used_ + sums.size() > cuda::kPendingSums) settle();
  if (!sums_) sums_ = scratch(cuda::kPendingSums * sizeof(ErrorSums));
  const auto rows = scratch(static_cast<size_t>(std::max<int64_t>(reference.rows(), 1)) * sizeof(ErrorSums));
  auto* of_rows = static_cast<ErrorSums*>(rows.get());
  if (reference.rows() > 0) cuda::compare_rows_of(cuda::view(reference), cuda::view(other), of_rows, stream());
  const auto offsets = to_device(window_offsets);
  cuda::add_windows<<<static_cast<unsigned>(sums.size()), cuda::kThreads, 0, stream()>>>(
      of_rows, offsets.get(), static_cast<ErrorSums*>(sums_.get()) + sums_used_);
  cuda::check_launch("comparing activations");
  pending_.push_back({.first = sums_used_, .to = sums});
  sums_used_ += sums.size();
}

void CudaBackend::settle() {
  if (pending_.empty()) return;
  std::vector<ErrorSums> all(sums_used_);
  to_host(all.data(), sums_.get(), all.size() * sizeof(ErrorSums));
  for (const Pending& p : pending_)
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(p.first), p.to.size(), p.to.begin());
  pending_.clear();
  sums_used_ = 0;
}

}  // namespace mxlm
