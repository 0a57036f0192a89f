#pragma once

// Folding block scales into elements, for products in FP8: a row of quantised values is written as FP8 numbers times
// one power of two, the row's scale. Exact while the block exponents of a row lie close enough together
// (docs/numerics.md), which is checked for every value; a row that does not fit is noted and kept in bfloat16, and its
// products are computed from there.

#include <cuda_fp8.h>

#include "backend/cuda/rows.cuh"

namespace mxlm::cuda {

/// Where a folded matrix goes.
struct FoldTarget {
  Rows out;                     // FP8 codes; cols: zeros behind the last value included
  bool e5m2 = false;            // else E4M3
  float* row_scales = nullptr;  // [rows]
  Quantizer quantizer;
  // Rows that do not fit; all null where a rounded element is what is wanted (MXFP8, whose products have a bound).
  BFloat16* inexact = nullptr;  // [rows, inexact_stride], packed
  int64_t inexact_stride = 0;
  int32_t* inexact_rows = nullptr;  // how many, then which
};

constexpr int kMaxFolds = 4;
struct FoldTargets {
  int count = 0;
  FoldTarget at[kMaxFolds];
};

/// Columns that a block of threads holds.
constexpr int64_t kWidestFold = int64_t{8} * 512 * kChunk;

#if defined(__CUDACC__)

/// The largest value over the block's threads, for all of them; `shared` has one a warp.
__device__ inline uint32_t block_largest(uint32_t value, uint32_t* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = max(value, __shfl_xor_sync(kAllLanes, value, step));
  __syncthreads();  // what was there has been read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  uint32_t all = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) all = max(all, shared[w]);
  return all;
}

/// The exponent of the row's scale for values up to `amax`: as large a number as the code has. Its products with
/// values, and its own power of two, stay within float32.
__device__ inline int fold_exponent(bool e5m2, uint32_t amax) {
  if (amax == 0 || amax >= mx::detail::kInfinity) return 0;
  // 1.75 x 2^8 and 1.75 x 2^15 are the largest; a significand above 1.75 needs the binade below.
  const int top = (e5m2 ? 15 : 8) - ((amax & 0x7fffffU) > 0x600000U ? 1 : 0);
  const int exponent = static_cast<int>(amax >> 23) - 127 - top;
  return max(-126, min(exponent, 126));
}

__device__ inline uint32_t fp8_pair(bool e5m2, float low, float high) {
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, e5m2 ? __NV_E5M2 : __NV_E4M3);
}
__device__ inline float fp8_value(bool e5m2, uint32_t code) {
  return __half2float(
      __half(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code), e5m2 ? __NV_E5M2 : __NV_E4M3)));
}

/// One row, a block of threads: thread t has chunks t, t + threads, ... of it, `get(k, x)` computes the values of its
/// k-th before quantising (zeros behind the last column). `shared` has a value a warp and one more.
template <int items, typename Get>
__device__ inline void fold_row(const FoldTarget& target, int64_t r, int64_t cols, const Get& get, uint32_t* shared) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 != 9
  __trap();  // only Hopper folds (backend.cpp); elsewhere the code would be there in vain, and where FP8 is emulated be
             // huge
#else
  const int64_t step = static_cast<int64_t>(blockDim.x) * kChunk;
  const int64_t start = static_cast<int64_t>(threadIdx.x) * kChunk;
  uint4 held[items];  // quantised values are bfloat16s
  uint32_t amax = 0;
#pragma unroll
  for (int k = 0; k < items; ++k) {
    float x[kChunk], y[kChunk];
    get(k, x);
    quantize_chunk(target.quantizer, largest_of(x), x, y);
    if (start + k * step + kChunk > cols) {  // a NaN block does not reach into the padding
#pragma unroll
      for (int i = 0; i < kChunk; ++i) y[i] = start + k * step + i < cols ? y[i] : 0.0F;
    }
    // NaN blocks do not count for the scale.
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const uint32_t magnitude = __float_as_uint(y[i]) & mx::detail::kMagnitude;
      amax = max(amax, magnitude < mx::detail::kInfinity ? magnitude : 0);
    }
    held[k] = make_uint4(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7]));
  }
  amax = block_largest(amax, shared);
  const int exponent = fold_exponent(target.e5m2, amax);
  const float inverse = power_of_two(-exponent);
  bool fits = true;
#pragma unroll
  for (int k = 0; k < items; ++k) {
    const int64_t c = start + k * step;
    float y[kChunk];
    unpack(held[k], y);
    uint32_t words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < kChunk; i += 2) {
      const float low = y[i] * inverse, high = y[i + 1] * inverse;
      const uint32_t pair = fp8_pair(target.e5m2, low, high);
      words[i / 4] |= pair << (16 * (i / 2 % 2));
      if (target.inexact_rows != nullptr) {
        fits &= !(fp8_value(target.e5m2, pair & 0xffU) != low && low == low);
        fits &= !(fp8_value(target.e5m2, pair >> 8) != high && high == high);
      }
    }
    if (c < target.out.cols) *reinterpret_cast<uint2*>(target.out.row<uint8_t>(r) + c) = make_uint2(words[0], words[1]);
  }
  if (threadIdx.x == 0) target.row_scales[r] = power_of_two(exponent);
  if (target.inexact_rows == nullptr) return;
  if (__syncthreads_and(fits) != 0) return;
  if (target.inexact == nullptr) {  // only whether
    if (threadIdx.x == 0) atomicAdd(target.inexact_rows, 1);
    return;
  }
  if (threadIdx.x == 0) {
    const int32_t place = atomicAdd(target.inexact_rows, 1);
    target.inexact_rows[1 + place] = static_cast<int32_t>(r);
    shared[0] = static_cast<uint32_t>(place);
  }
  __syncthreads();
  BFloat16* out = target.inexact + shared[0] * target.inexact_stride;
#pragma unroll
  for (int k = 0; k < items; ++k) {
    const int64_t c = start + k * step;
    if (c < target.inexact_stride) *reinterpret_cast<uint4*>(out + c) = held[k];
  }
  __syncthreads();  // before `shared` is written again
#endif
}

/// Folds from values that produce(row, column, x) computes: a block a row.
template <typename Produce, int items>
__global__ void __launch_bounds__(512)
    fold_rows(const __grid_constant__ Produce produce, int64_t cols, const __grid_constant__ FoldTargets targets) {
  __shared__ uint32_t shared[512 / 32 + 1];
  const int64_t r = blockIdx.x;
  const auto get = [&](int k, float(&x)[kChunk]) {
    const int64_t c = (int64_t{k} * blockDim.x + threadIdx.x) * kChunk;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x[i] = 0;
    if (c < cols) produce(r, c, x);
  };
  for (int t = 0; t < targets.count; ++t) fold_row<items>(targets.at[t], r, cols, get, shared);
}

template <typename Produce>
void launch_fold_rows(const Produce& produce, int64_t rows, int64_t cols, const FoldTargets& targets,
                      cudaStream_t stream) {
  if (targets.count == 0 || rows == 0) return;
  const int64_t chunks = padded(cols) / kChunk;
  assert(padded(cols) <= kWidestFold);
  const auto launch = [&](auto kernel, int64_t items) {
    const auto threads = static_cast<unsigned>(((chunks + items - 1) / items + 31) / 32 * 32);
    kernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(produce, cols, targets);
  };
  if (chunks <= 256) {
    launch(fold_rows<Produce, 1>, 1);
  } else if (chunks <= 512) {
    launch(fold_rows<Produce, 2>, 2);
  } else if (chunks <= 2048) {
    launch(fold_rows<Produce, 4>, 4);
  } else {
    launch(fold_rows<Produce, 8>, 8);
  }
  check_launch("folding operands");
}

#endif  // __CUDACC__

}  // namespace mxlm::cuda
