// Float32 matrices as two float16 ones with a power of two a row (products.hpp).

#include "backend/cuda/rows.cuh"
#include "backend/cuda/weights.hpp"

namespace mxlm::cuda {
namespace {

constexpr int kRowThreads = 128;  // a block a row
constexpr int kRowWarps = kRowThreads / 32;
// The largest magnitude of a row is brought to [2^14, 2^15), which float16 rounds to at most 2^15.
constexpr int kTopExponent = 14;
// In small products, whose factors are far apart, the second part is kept larger and the first one smaller, so that
// both lose bits to the bottom of float16's range at rows' values that are as small as possible.
constexpr float kRaise = 0x1p5F, kLower = 0x1p-5F;

/// e of a row's power 2^e. Subnormals count as 2^-127 here: 2^126 makes them at most 1, exactly.
__device__ int row_exponent(uint32_t amax) { return max(static_cast<int>(amax >> 23) - 127 - kTopExponent, -126); }

__device__ void store_halves(__half* to, const __half (&x)[kChunk]) {
  uint32_t words[kChunk / 2];
#pragma unroll
  for (int i = 0; i < kChunk / 2; ++i) {
    words[i] = static_cast<uint32_t>(__half_as_ushort(x[2 * i])) | static_cast<uint32_t>(__half_as_ushort(x[2 * i + 1]))
                                                                       << 16;
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

template <typename In>
__global__ void __launch_bounds__(kRowThreads)
    halve_rows(const __grid_constant__ Rows in, __half* out, int64_t stride, float* powers, int64_t part, bool weight) {
  __shared__ uint32_t of_warp[kRowWarps];
  const int64_t r = blockIdx.x;
  const int64_t start = int64_t{threadIdx.x} * kChunk, step = int64_t{kRowThreads} * kChunk;
  float x[kChunk];
  uint32_t amax = 0;
  for (int64_t c = start; c < in.cols; c += step) {
    load_chunk<In>(in, r, c, x);
    amax = max(amax, largest_of(x));
  }
  amax = __reduce_max_sync(kAllLanes, amax);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = amax;
  __syncthreads();
  for (const uint32_t other : of_warp) amax = max(amax, other);

  const bool finite = amax < mx::detail::kInfinity;
  const int e = finite ? row_exponent(amax) : 0;
  const float inverse = power_of_two(-e);
  if (threadIdx.x == 0) powers[r] = finite ? power_of_two(e) : __uint_as_float(mx::detail::kQuietNan);
  __half* row = out + r * stride;
  for (int64_t c = start; c < part; c += step) {
    load_chunk<In>(in, r, c, x);  // zeros from in.cols on
    __half large[kChunk];
    __half lowered[kChunk];
    __half small[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float value = finite ? x[i] * inverse : 0.0F;  // exact, or far too small for both parts
      large[i] = __float2half_rn(value);
      const float rounded_value = __half2float(large[i]);
      lowered[i] = __float2half_rn(rounded_value * kLower);
      small[i] = __float2half_rn((value - rounded_value) * kRaise);  // the difference is exact
    }
    store_halves(row + (weight ? 0 : part) + c, lowered);
    store_halves(row + (weight ? part : 0) + c, small);
    store_halves(row + 2 * part + c, large);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    join_rows(const __half* in, int64_t stride, const float* powers, int64_t part, const __grid_constant__ Rows out) {
  const int64_t r = blockIdx.x;
  const __half* row = in + r * stride;
  const float power = powers[r];
  for (int64_t c = int64_t{threadIdx.x} * kChunk; c < out.cols; c += int64_t{kRowThreads} * kChunk) {
    float large[kChunk];
    float small[kChunk];
    load_values(row + 2 * part + c, kChunk, /*vector=*/true, large);
    load_values(row + part + c, kChunk, /*vector=*/true, small);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) large[i] = (large[i] + small[i] * kLower) * power;
    store_chunk<float>(out, r, c, large);
  }
}

[[maybe_unused]] bool is_packable(const View& parts, int64_t part) {
  return parts.type == DType::f16 && parts.stride == 3 * part && part % kRowStep == 0 &&
         reinterpret_cast<uintptr_t>(parts.data) % 16 == 0;
}

}  // namespace

void halve_matrix(const View& in, const View& out, float* powers, int64_t part, bool weight, cudaStream_t stream) {
  assert(is_packable(out, part) && part >= in.cols && (in.type == DType::f32 || in.type == DType::f16));
  if (in.rows == 0) return;
  const auto blocks = static_cast<unsigned>(in.rows);
  if (in.type == DType::f16) {
    halve_rows<__half>
        <<<blocks, kRowThreads, 0, stream>>>(make_rows(in), out.as<__half>(), out.stride, powers, part, weight);
  } else {
    halve_rows<float>
        <<<blocks, kRowThreads, 0, stream>>>(make_rows(in), out.as<__half>(), out.stride, powers, part, weight);
  }
  check_launch("splitting a matrix");
}

void join_halves(const View& in, const float* powers, int64_t part, const View& out, cudaStream_t stream) {
  assert(is_packable(in, part) && part >= out.cols && out.type == DType::f32);
  if (in.rows == 0) return;
  join_rows<<<static_cast<unsigned>(in.rows), kRowThreads, 0, stream>>>(in.as<__half>(), in.stride, powers, part,
                                                                        make_rows(out));
  check_launch("joining the parts of a matrix");
}

}  // namespace mxlm::cuda
