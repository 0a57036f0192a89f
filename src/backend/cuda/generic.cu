#include "backend/cuda/generic.hpp"
#include "backend/cuda/quantize.cuh"
#include "mx/reference_format.hpp"

namespace mxlm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

/// A matrix whose element type is looked at for each value.
struct AnyRows {
  void* data;
  DType type;
  int64_t stride, cols;

  explicit AnyRows(const View& v) : data(v.data), type(v.type), stride(v.stride), cols(v.cols) {}
  __device__ float get(int64_t r, int64_t c) const {
    const int64_t i = r * stride + c;
    if (type == DType::f32) return static_cast<const float*>(data)[i];
    if (type == DType::bf16) return load(static_cast<const BFloat16*>(data)[i]);
    return load(static_cast<const __half*>(data)[i]);
  }
  __device__ void put(int64_t r, int64_t c, float x) const {
    const int64_t i = r * stride + c;
    if (type == DType::f32) {
      static_cast<float*>(data)[i] = x;
    } else {
      store(x, static_cast<BFloat16*>(data)[i]);
    }
  }
};

__device__ uint32_t magnitude_of(float x) { return __float_as_uint(x) & mx::detail::kMagnitude; }

/// mx::block_exponent of n values from column `start` of row r, computed by a warp; all lanes get it.
__device__ int warp_block_exponent(const mx::Format& f, const AnyRows& in, int64_t r, int64_t start, int64_t n) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  uint32_t amax = 0;
  for (int64_t i = lane; i < n; i += 32) amax = max(amax, magnitude_of(in.get(r, start + i)));
  amax = __reduce_max_sync(kAllLanes, amax);
  const int floor = mx::shared_exponent(f, amax);
  if (f.rule != mx::ScaleRule::mse || floor == mx::kNanExponent) return floor;
  const int limit = mx::max_scale_exponent(f.scale_bits);
  int best = floor;
  double least = 0;
  for (int k = 0; k < 3; ++k) {  // in the order that ties prefer: floor, the larger, the smaller
    const int e = floor + (k == 2 ? -1 : k);
    if (e > limit || e < -limit) continue;
    // Squares by all lanes, their sum in the order of the values.
    double error = 0;
    for (int64_t first = 0; first < n; first += 32) {
      double square = 0;
      if (first + lane < n) {
        const float x = in.get(r, start + first + lane);
        const double d = static_cast<double>(x) - static_cast<double>(mx::quantize_decode(f.element, f.rounding, e, x));
        square = __dmul_rn(d, d);
      }
      const int count = n - first < 32 ? static_cast<int>(n - first) : 32;
      for (int j = 0; j < count; ++j) error = __dadd_rn(error, __shfl_sync(kAllLanes, square, j));
    }
    if (k == 0 || error < least) {
      least = error;
      best = e;
    }
  }
  return best;
}

struct BlockOf {
  int64_t row, start, length;
  bool last;  // of its row
};
__device__ BlockOf block_of(int64_t index, int64_t blocks, int64_t size, int64_t cols) {
  const int64_t row = index / blocks;
  const int64_t start = (index - row * blocks) * size;
  const int64_t left = cols - start;
  return {row, start, left < size ? left : size, left <= size};
}

/// A warp a block.
__global__ void __launch_bounds__(kThreads)
    quantize_blocks(const __grid_constant__ mx::Format f, const __grid_constant__ AnyRows in,
                    const __grid_constant__ AnyRows out, int64_t total, int64_t blocks, int64_t size, int64_t width) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= total) return;  // the whole warp
  const int lane = static_cast<int>(threadIdx.x % 32);
  const BlockOf block = block_of(index, blocks, size, in.cols);
  const int e = warp_block_exponent(f, in, block.row, block.start, block.length);
  __syncwarp();
  for (int64_t i = lane; i < block.length; i += 32) {
    const float x = in.get(block.row, block.start + i);
    out.put(block.row, block.start + i,
            e == mx::kNanExponent ? mx::detail::float_of(mx::detail::kQuietNan)
                                  : mx::quantize_decode(f.element, f.rounding, e, x));
  }
  if (!block.last) return;
  for (int64_t c = in.cols + lane; c < width; c += 32) out.put(block.row, c, 0);
}

__global__ void __launch_bounds__(kThreads)
    write_scale_codes(const __grid_constant__ mx::Format f, const __grid_constant__ AnyRows in, uint8_t* scales,
                      int64_t total, int64_t blocks, int64_t size) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= total) return;
  const BlockOf block = block_of(index, blocks, size, in.cols);
  const int e = warp_block_exponent(f, in, block.row, block.start, block.length);
  if (threadIdx.x % 32 == 0) scales[index] = mx::scale_code(e);
}

/// Formats without a scale, or with one for each element; a block a row.
__global__ void __launch_bounds__(kThreads)
    quantize_elements(const __grid_constant__ mx::Format f, const __grid_constant__ AnyRows in,
                      const __grid_constant__ AnyRows out, int64_t width) {
  const int64_t r = blockIdx.x;
  for (int64_t c = threadIdx.x; c < width; c += kThreads) {
    float y = 0;
    if (c < in.cols) {
      const float x = in.get(r, c);
      if (f.scaling == mx::Scaling::none) {
        y = mx::cast_decode(f, x);
      } else {
        mx::quantize_decode_block(f, &x, 1, &y);
      }
    }
    out.put(r, c, y);
  }
}

/// The largest magnitude's bits in a row, for all threads of the block; `inliers`: among those that are no outliers.
__device__ uint32_t row_amax(const AnyRows& in, int64_t r, bool inliers) {
  __shared__ uint32_t of_warp[kWarps];
  uint32_t amax = 0;
  for (int64_t c = threadIdx.x; c < in.cols; c += kThreads) {
    const float x = in.get(r, c);
    if (!inliers || !mx::is_outlier(x)) amax = max(amax, magnitude_of(x));
  }
  amax = __reduce_max_sync(kAllLanes, amax);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = amax;
  __syncthreads();
  for (const uint32_t other : of_warp) amax = max(amax, other);
  return amax;
}

__global__ void __launch_bounds__(kThreads)
    reduce_windows(const __grid_constant__ AnyRows in, const int32_t* window_of, uint32_t* amax) {
  const int64_t r = blockIdx.x;
  const uint32_t largest = row_amax(in, r, false);
  if (threadIdx.x == 0) atomicMax(amax + (window_of == nullptr ? 0 : window_of[r]), largest);
}

__global__ void __launch_bounds__(kThreads)
    flag_outliers(const __grid_constant__ AnyRows in, const int32_t* window_of, uint8_t* flags) {
  const int64_t r = blockIdx.x;
  uint8_t* row = flags + (window_of == nullptr ? 0 : window_of[r]) * in.cols;
  for (int64_t c = threadIdx.x; c < in.cols; c += kThreads) {
    if (mx::is_outlier(in.get(r, c))) row[c] = 1;
  }
}

/// A block a row.
__global__ void __launch_bounds__(kThreads)
    scale_rows(const __grid_constant__ mx::Format f, const __grid_constant__ AnyRows in,
               const __grid_constant__ AnyRows out, int64_t width, const __grid_constant__ AnyRows left_out,
               const __grid_constant__ ScaledRows args) {
  const int64_t r = blockIdx.x;
  const int64_t window = args.window_of == nullptr ? 0 : args.window_of[r];
  const uint8_t* flags = args.outliers == nullptr ? nullptr : args.outliers + window * in.cols;
  const uint32_t amax = args.amax != nullptr ? args.amax[window] : row_amax(in, r, flags != nullptr);
  const float outer = mx::outer_scale(f, amax);
  const bool degenerate = mx::degenerate_scale(outer);
  const float factor = args.multiply ? outer : 1;
  __syncthreads();  // all have read the row, which may be the output
  if (threadIdx.x == 0 && args.row_scales != nullptr) args.row_scales[r] = outer;
  if (left_out.data != nullptr) {
    for (int64_t c = threadIdx.x; c < left_out.stride; c += kThreads) {
      left_out.put(r, c, c < in.cols && flags != nullptr && flags[c] != 0 ? in.get(r, c) : 0.0F);
    }
  }
  if (f.scaling == mx::Scaling::nvfp4) {
    for (int64_t start = static_cast<int64_t>(threadIdx.x) * f.block_size; start < in.cols;
         start += static_cast<int64_t>(kThreads) * f.block_size) {
      const int64_t end = start + f.block_size < in.cols ? start + f.block_size : in.cols;
      uint32_t block_amax = 0;
      for (int64_t c = start; c < end; ++c) block_amax = max(block_amax, magnitude_of(in.get(r, c)));
      const float block = degenerate ? 0 : mx::nvfp4_block_scale(f, outer, block_amax);
      for (int64_t c = start; c < end; ++c) {
        const float value = degenerate ? 0 : mx::nvfp4_element(f, outer, block, in.get(r, c)) * block;
        out.put(r, c, args.multiply ? value * factor : value);
      }
    }
  } else {
    for (int64_t c = threadIdx.x; c < in.cols; c += kThreads) {
      const bool zero = degenerate || (flags != nullptr && flags[c] != 0);
      const float value = zero ? 0 : mx::scaled_decode(f, outer, amax, in.get(r, c));
      out.put(r, c, args.multiply ? value * factor : value);
    }
  }
  for (int64_t c = in.cols + threadIdx.x; c < width; c += kThreads) out.put(r, c, 0);
}

/// Blocks of a grid; more rows than it can have are a mistake of the caller's.
unsigned grid(int64_t blocks) {
  if (blocks > INT32_MAX) check(cudaErrorInvalidConfiguration, "quantising a matrix of too many rows");
  return static_cast<unsigned>(blocks);
}

}  // namespace

void quantize_rows(const mx::Format& format, const View& in, const View& out, int64_t width, cudaStream_t stream) {
  if (in.rows == 0 || width == 0) return;
  if (format.scaling == mx::Scaling::block) {
    const int64_t size = format.block_size == 0 ? in.cols : format.block_size;
    const int64_t blocks = mx::block_count(format, in.cols);
    const int64_t total = in.rows * blocks;
    if (total == 0) return;
    quantize_blocks<<<grid((total + kWarps - 1) / kWarps), kThreads, 0, stream>>>(format, AnyRows(in), AnyRows(out),
                                                                                  total, blocks, size, width);
  } else {
    quantize_elements<<<grid(in.rows), kThreads, 0, stream>>>(format, AnyRows(in), AnyRows(out), width);
  }
  check_launch("quantising rows");
}

void quantize_scaled_rows(const mx::Format& format, const View& in, const View& out, int64_t width,
                          const ScaledRows& args, cudaStream_t stream) {
  if (in.rows == 0) return;
  scale_rows<<<grid(in.rows), kThreads, 0, stream>>>(format, AnyRows(in), AnyRows(out), width, AnyRows(args.left_out),
                                                     args);
  check_launch("quantising rows");
}

void window_amax(const View& in, const int32_t* window_of, uint32_t* amax, cudaStream_t stream) {
  if (in.rows == 0) return;
  reduce_windows<<<grid(in.rows), kThreads, 0, stream>>>(AnyRows(in), window_of, amax);
  check_launch("looking for the largest values");
}

void mark_outliers(const View& in, const int32_t* window_of, uint8_t* flags, cudaStream_t stream) {
  if (in.rows == 0) return;
  flag_outliers<<<grid(in.rows), kThreads, 0, stream>>>(AnyRows(in), window_of, flags);
  check_launch("looking for outliers");
}

void block_scale_codes(const mx::Format& format, const View& in, uint8_t* scales, cudaStream_t stream) {
  const int64_t size = format.block_size == 0 ? in.cols : format.block_size;
  const int64_t blocks = mx::block_count(format, in.cols);
  const int64_t total = in.rows * blocks;
  if (total == 0) return;
  write_scale_codes<<<grid((total + kWarps - 1) / kWarps), kThreads, 0, stream>>>(format, AnyRows(in), scales, total,
                                                                                  blocks, size);
  check_launch("quantising rows");
}

}  // namespace mxlm::cuda
