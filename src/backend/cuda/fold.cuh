#pragma once

// Folding block scales into elements, for products in FP8: a row of quantised values is written as FP8 numbers times
// one power of two, the row's scale. Exact while the block exponents of a row lie close enough together
// (docs/numerics.md), which is checked for every block; a row that does not fit is noted and kept in bfloat16, and its
// products are computed from there.

#include <cuda_fp8.h>

#include <climits>

#include "backend/cuda/rows.cuh"

namespace mxlm::cuda {

/// Where a folded matrix goes.
struct FoldTarget {
  Rows out;                     // FP8 codes; cols: zeros behind the last value included
  bool e5m2 = false;            // else E4M3
  float* row_scales = nullptr;  // [rows]
  Quantizer quantizer;
  int32_t top = 0;      // the row's scale is 2^(largest block exponent + top): the largest element just fits
  int32_t quantum = 0;  // of the smallest elements, and of the smallest codes, as exponents: what a block needs
  int32_t finest = 0;   // and what there is
  // Rows that do not fit; all null where a rounded element is what is wanted (MXFP8, whose products have a bound).
  BFloat16* inexact = nullptr;  // [rows, inexact_stride], packed
  int64_t inexact_stride = 0;
  int32_t* inexact_rows = nullptr;  // how many, then which
};

/// What a target says of its format.
inline void set_format(FoldTarget& target, const mx::Format& format, bool e5m2) {
  const mx::ElementFormat& e = format.element;
  target.quantizer = make_quantizer(format);
  target.e5m2 = e5m2;
  // The largest codes are 1.75 x 2^8 and 1.75 x 2^15; an element above 1.75 x 2^emax needs the binade below.
  const bool above = e.max > 1.75F * mx::power_of_two(e.emax);
  target.top = e.emax - (e5m2 ? 15 : 8) + (above ? 1 : 0);
  target.quantum = e.emin - e.mantissa_bits;
  target.finest = e5m2 ? -16 : -9;
}

constexpr int kMaxFolds = 4;
struct FoldTargets {
  int count = 0;
  FoldTarget at[kMaxFolds];
};

/// Columns of a row that fit a block's shared memory (64 KB).
constexpr int64_t kWidestFold = 32768;

#if defined(__CUDACC__)

/// The largest block exponent over the block's threads and the smallest, for all of them; `shared` has one a warp.
__device__ inline int2 exponent_range(int largest, int smallest, int2* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, step));
    smallest = min(smallest, __shfl_xor_sync(kAllLanes, smallest, step));
  }
  __syncthreads();  // what was there has been read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = make_int2(largest, smallest);
  __syncthreads();
  for (unsigned w = 0; w < blockDim.x / 32; ++w) {
    largest = max(largest, shared[w].x);
    smallest = min(smallest, shared[w].y);
  }
  return make_int2(largest, smallest);
}

__device__ inline uint32_t fp8_pair(bool e5m2, float low, float high) {
  const float2 pair = make_float2(low, high);
  return e5m2 ? __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E5M2)
              : __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
}
__device__ inline float2 fp8_values(bool e5m2, uint32_t pair) {
  const auto codes = static_cast<__nv_fp8x2_storage_t>(pair);
  return __half22float2(
      __half2(e5m2 ? __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E5M2) : __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3)));
}

/// Chunks of a row in shared memory: whole warps' worth.
__host__ __device__ constexpr int64_t held_chunks(int64_t cols) {
  return (cols + 32 * kChunk - 1) / (32 * kChunk) * 32;
}

/// One row, a block of threads. `for_chunks(take)` calls take(column, x) for the thread's chunks with their values
/// before quantising (zeros behind the last column), all lanes of a warp together; the row waits in `held`
/// (held_chunks(cols)) until its scale is known. `shared` has a value a warp and one more.
template <typename ForChunks>
__device__ inline void fold_row(const FoldTarget& target, int64_t r, int64_t cols, const ForChunks& for_chunks,
                                uint4* held, int2* shared) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 != 9
  __trap();  // only Hopper folds (backend.cpp); elsewhere the code would be there in vain
#else
  // Blocks of zeros and NaN blocks do not count.
  int largest = INT_MIN, smallest = INT_MAX;
  for_chunks([&](int64_t c, const float(&x)[kChunk]) {
    float y[kChunk];
    const uint32_t amax = block_largest(target.quantizer, largest_of(x));
    const int e = shared_exponent(target.quantizer, amax);
    quantize_with(target.quantizer, e, x, y);
    if (amax != 0 && e < mx::kNanExponent) {
      largest = max(largest, e);
      smallest = min(smallest, e);
    }
    if (c + kChunk > cols) {  // a NaN block does not reach into the padding
#pragma unroll
      for (int i = 0; i < kChunk; ++i) y[i] = c + i < cols ? y[i] : 0.0F;
    }
    // Quantised values are bfloat16s.
    held[c / kChunk] =
        make_uint4(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7]));
  });
  const int2 range = exponent_range(largest, smallest, shared);
  const bool empty = range.x == INT_MIN;
  const int exponent = empty ? 0 : max(-126, min(range.x + target.top, 127));
  const bool fits = empty || range.y + target.quantum - exponent >= target.finest;
  const float inverse = power_of_two(-exponent);
  const int64_t step = static_cast<int64_t>(blockDim.x) * kChunk;
  const int64_t start = static_cast<int64_t>(threadIdx.x) * kChunk;
  for (int64_t c = start; c < target.out.cols; c += step) {  // what this thread has written
    float y[kChunk];
    unpack(held[c / kChunk], y);
    uint32_t pairs[kChunk / 2];
#pragma unroll
    for (int i = 0; i < kChunk / 2; ++i) {
      pairs[i] = fp8_pair(target.e5m2, y[2 * i] * inverse, y[2 * i + 1] * inverse);
    }
    *reinterpret_cast<uint2*>(target.out.row<uint8_t>(r) + c) =
        make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
  }
  if (threadIdx.x == 0) target.row_scales[r] = power_of_two(exponent);
  if (target.inexact_rows == nullptr || fits) return;  // the same for all threads
  if (target.inexact == nullptr) {                     // only whether
    if (threadIdx.x == 0) atomicAdd(target.inexact_rows, 1);
    return;
  }
  if (threadIdx.x == 0) {
    const int32_t place = atomicAdd(target.inexact_rows, 1);
    target.inexact_rows[1 + place] = static_cast<int32_t>(r);
    shared[blockDim.x / 32].x = place;
  }
  __syncthreads();
  BFloat16* out = target.inexact + shared[blockDim.x / 32].x * target.inexact_stride;
  for (int64_t c = start; c < target.inexact_stride; c += step) {
    *reinterpret_cast<uint4*>(out + c) = held[c / kChunk];
  }
  __syncthreads();  // before `shared` is written again
#endif
}

/// Folds from values that produce(row, column, x) computes: a block a row.
template <typename Produce>
__global__ void __launch_bounds__(kThreads)
    fold_rows(const __grid_constant__ Produce produce, int64_t cols, const __grid_constant__ FoldTargets targets) {
  extern __shared__ uint4 held[];
  __shared__ int2 shared[kThreads / 32 + 1];
  const int64_t r = blockIdx.x;
  const auto for_chunks = [&](const auto& take) {
    const int64_t chunks = held_chunks(cols);
    for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += kThreads) {  // whole warps
      const int64_t c = chunk * kChunk;
      float x[kChunk] = {};
      if (c < cols) produce(r, c, x);
      take(c, x);
    }
  };
  for (int t = 0; t < targets.count; ++t) fold_row(targets.at[t], r, cols, for_chunks, held, shared);
}

/// Lets a kernel have this much dynamic shared memory.
template <typename Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  if (bytes <= size_t{48} << 10) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "folding operands");
}

template <typename Produce>
void launch_fold_rows(const Produce& produce, int64_t rows, int64_t cols, const FoldTargets& targets,
                      cudaStream_t stream) {
  if (targets.count == 0 || rows == 0) return;
  assert(padded(cols) <= kWidestFold);
  const size_t held = static_cast<size_t>(held_chunks(cols)) * sizeof(uint4);
  allow_shared(fold_rows<Produce>, held);
  fold_rows<Produce><<<static_cast<unsigned>(rows), kThreads, held, stream>>>(produce, cols, targets);
  check_launch("folding operands");
}

#endif  // __CUDACC__

}  // namespace mxlm::cuda
