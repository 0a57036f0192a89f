#pragma once

// The frame of kernels that work on rows. A thread takes chunks of 8 consecutive values of a row, loads and stores 16
// bytes at a time where a view's alignment allows, and writes every operand that was asked for from the values it
// holds.

#include <algorithm>
#include <cassert>
#include <type_traits>

#include "backend/cuda/quantize.cuh"
#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// Rows of a matrix as a kernel reads or writes them.
struct Rows {
  void* data = nullptr;
  int64_t stride = 0;
  int64_t cols = 0;     // reading: values; writing: where they end, zeros behind the last value included
  bool vector = false;  // rows are 16-byte aligned

  template <typename T>
  __host__ __device__ T* row(int64_t r) const {
    return static_cast<T*>(data) + r * stride;
  }
};

inline Rows make_rows(void* data, DType type, int64_t stride, int64_t cols) {
  const auto size = static_cast<int64_t>(dtype_size(type));
  const bool vector = reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * size % 16 == 0;
  return {data, stride, cols, vector};
}
inline Rows make_rows(const View& v) { return make_rows(v.data, v.type, v.stride, v.cols); }
/// For writing a matrix whose rows are zero up to their stride.
inline Rows make_padded_rows(const View& v) { return make_rows(v.data, v.type, v.stride, v.stride); }

/// One thing that is made of a row's values.
struct Target {
  Rows out;
  bool f32 = false;       // else bfloat16
  bool quantize = false;  // else the values as they are
  Quantizer quantizer;
};

constexpr int kMaxTargets = 8;  // of one launch
struct Targets {
  int count = 0;
  Target at[kMaxTargets];
};

#if defined(__CUDACC__)

__device__ inline void unpack(const uint4& packed, float (&x)[kChunk]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
  }
}

/// The 8 values from `from` on as floats, zeros behind the first `left`; `vector`: `from` is 16-byte aligned.
template <typename T>
__device__ inline void load_values(const T* from, int64_t left, bool vector, float (&x)[kChunk]) {
  if (vector && left >= kChunk) {
    if constexpr (sizeof(T) == 4) {
      const float4 low = *reinterpret_cast<const float4*>(from);
      const float4 high = *reinterpret_cast<const float4*>(from + 4);
      x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
      x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
      const uint4 packed = *reinterpret_cast<const uint4*>(from);
      if constexpr (std::is_same_v<T, __half>) {
        const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
        for (int i = 0; i < kChunk; ++i) {
          x[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i / 2] >> (16 * (i % 2)))));
        }
      } else {
        unpack(packed, x);
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) x[i] = i < left ? load(from[i]) : 0.0F;
}

/// Values [c, c + 8) of a row, zeros from rows.cols on.
template <typename T>
__device__ inline void load_chunk(const Rows& rows, int64_t r, int64_t c, float (&x)[kChunk]) {
  load_values(rows.row<T>(r) + c, rows.cols - c, rows.vector, x);
}

/// The 8 values from `to` on, of which the first `left` are written.
__device__ inline void store_values(float* to, int64_t left, bool vector, const float (&x)[kChunk]) {
  if (vector && left >= kChunk) {
    __stcg(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
    __stcg(reinterpret_cast<float4*>(to + 4), make_float4(x[4], x[5], x[6], x[7]));
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (i < left) to[i] = x[i];
  }
}
__device__ inline void store_values(BFloat16* to, int64_t left, bool vector, const float (&x)[kChunk]) {
  if (vector && left >= kChunk) {
    __stcg(reinterpret_cast<uint4*>(to),
           make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])));
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (i < left) store(x[i], to[i]);
  }
}

/// Writes values [c, c + 8) up to rows.cols.
template <typename T>
__device__ inline void store_chunk(const Rows& rows, int64_t r, int64_t c, const float (&x)[kChunk]) {
  store_values(rows.row<T>(r) + c, rows.cols - c, rows.vector, x);
}
__device__ inline void store_chunk(const Rows& rows, bool f32, int64_t r, int64_t c, const float (&x)[kChunk]) {
  f32 ? store_chunk<float>(rows, r, c, x) : store_chunk<BFloat16>(rows, r, c, x);
}

/// Writes one target from a chunk at column c of `cols` (its values from there on are zero); `inside` is false for
/// threads without a chunk, whose values are zero. Every lane of the warp takes part.
__device__ inline void write_target(const Target& target, bool inside, int64_t r, int64_t c, int64_t cols,
                                    uint32_t amax, const float (&x)[kChunk]) {
  if (!target.quantize) {
    if (inside) store_chunk(target.out, target.f32, r, c, x);
    return;
  }
  float y[kChunk];
  quantize_chunk(target.quantizer, amax, x, y);
  if (c + kChunk > cols) {  // a NaN block does not reach into the padding
#pragma unroll
    for (int i = 0; i < kChunk; ++i) y[i] = c + i < cols ? y[i] : 0.0F;
  }
  if (inside) store_chunk(target.out, target.f32, r, c, y);
}

constexpr int kThreads = 256;

/// Chunk `index` of a matrix whose rows have `chunks` of them.
struct ChunkAt {
  uint32_t row;
  int64_t col;
  bool inside;
};
__device__ inline ChunkAt chunk_at(uint32_t rows, uint32_t chunks) {
  const uint64_t index = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool inside = index < static_cast<uint64_t>(rows) * chunks;
  const uint32_t small = inside ? static_cast<uint32_t>(index) : 0;
  const uint32_t row = small / chunks;
  return {row, static_cast<int64_t>(small - row * chunks) * kChunk, inside};
}

/// Every target from the values that produce(row, column, x) computes: a thread a chunk. Producers leave zeros from
/// `cols` on.
template <typename Produce>
__global__ void __launch_bounds__(kThreads)
    write_rows(const __grid_constant__ Produce produce, uint32_t first, uint32_t rows, uint32_t chunks, int64_t cols,
               const __grid_constant__ Targets targets) {
  const ChunkAt at = chunk_at(rows, chunks);
  const int64_t r = int64_t{first} + at.row;
  float x[kChunk] = {};
  if (at.inside && at.col < cols) produce(r, at.col, x);
  const uint32_t amax = largest_of(x);
  for (int t = 0; t < targets.count; ++t) write_target(targets.at[t], at.inside, r, at.col, cols, amax, x);
}

/// Calls launch(first row, rows, blocks) for parts of a matrix of few enough chunks to be numbered in 32 bits.
template <typename Launch>
void for_parts(int64_t rows, int64_t chunks, const Launch& launch) {
  if (rows == 0 || chunks == 0) return;
  constexpr int64_t kMost = int64_t{1} << 31;
  assert(chunks <= kMost && rows < kMost);
  const int64_t step = std::max<int64_t>(1, kMost / chunks);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    launch(static_cast<uint32_t>(first), static_cast<uint32_t>(count),
           static_cast<uint32_t>((count * chunks + kThreads - 1) / kThreads));
  }
}

/// Chunks of a row so that no block of a target is in two warps, and its zeros to the end are written.
inline int64_t chunks_of(int64_t cols, const Targets& targets) {
  int64_t width = cols;
  int64_t step = 1;
  for (int t = 0; t < targets.count; ++t) {
    width = std::max(width, targets.at[t].out.cols);
    if (targets.at[t].quantize) step = std::max<int64_t>(step, targets.at[t].quantizer.lanes);
  }
  const int64_t chunks = (width + kChunk - 1) / kChunk;
  return (chunks + step - 1) / step * step;
}

template <typename Produce>
void launch_write_rows(const Produce& produce, int64_t rows, int64_t cols, const Targets& targets,
                       cudaStream_t stream) {
  if (targets.count == 0) return;
  const int64_t chunks = chunks_of(cols, targets);
  for_parts(rows, chunks, [&](uint32_t first, uint32_t count, uint32_t blocks) {
    write_rows<<<blocks, kThreads, 0, stream>>>(produce, first, count, static_cast<uint32_t>(chunks), cols, targets);
  });
  check_launch("writing operands");
}

/// The values of a matrix that is there.
template <typename In>
struct Source {
  Rows x;
  __device__ void operator()(int64_t r, int64_t c, float (&out)[kChunk]) const { load_chunk<In>(x, r, c, out); }
};

#endif  // __CUDACC__

}  // namespace mxlm::cuda
