// The operations of the CUDA backend on single values and rows that end in no operand.

#include <algorithm>
#include <cassert>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/embed.hpp"
#include "backend/cuda/finish.cuh"

namespace mxlm {
namespace cuda {
namespace {

// --- embeddings

/// Values of any type, as floats.
__device__ void load_any(DType type, const Rows& rows, int64_t r, int64_t c, float (&x)[kChunk]) {
  if (type == DType::f32) {
    load_chunk<float>(rows, r, c, x);
  } else if (type == DType::bf16) {
    load_chunk<BFloat16>(rows, r, c, x);
  } else {
    load_chunk<__half>(rows, r, c, x);
  }
}

struct Lookup {
  Rows rows;
  DType type = DType::f32;
  const int32_t* index = nullptr;  // row of each token
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    embed_chunks(const __grid_constant__ Lookup table, float multiplier, const __grid_constant__ Lookup positions,
                 const __grid_constant__ Rows out, uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float x[kChunk];
  load_any(table.type, table.rows, table.index[r], at.col, x);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    x[i] = rounded<T>(x[i]);
    if (multiplier != 1) x[i] = rounded<T>(x[i] * multiplier);
  }
  if (positions.index != nullptr) {
    float learned[kChunk];
    load_any(positions.type, positions.rows, positions.index[r], at.col, learned);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x[i] += rounded<T>(learned[i]);
  }
  store_chunk<T>(out, r, at.col, x);
}

// --- rotary embedding

struct Turn {
  Rows x, cos, sin;  // x.vector: also every head and half of one begins at 16 bytes
  const int32_t* rows;
  int heads, head_stride, half;
  bool interleaved;
};

/// x cos + y sin, products rounded to the tables' type.
template <typename Table>
__device__ float turned(float x, float cos, float y, float sin) {
  return rounded<Table>(x * cos) + rounded<Table>(y * sin);
}

/// A thread takes 8 pairs of a head: `index` counts rows, heads and their chunks.
template <typename T, typename Table>
__global__ void __launch_bounds__(kThreads)
    turn_pairs(const __grid_constant__ Turn turn, uint32_t first, uint32_t rows, uint32_t per_row, uint32_t per_head) {
  const uint64_t index = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= static_cast<uint64_t>(rows) * per_row) return;
  const auto small = static_cast<uint32_t>(index);
  const uint32_t row = small / per_row;
  const uint32_t in_row = small - row * per_row;
  const uint32_t head = in_row / per_head;
  const int pair = static_cast<int>(in_row - head * per_head) * kChunk;
  const int64_t r = int64_t{first} + row;
  const int left = turn.half - pair;
  const int32_t position = turn.rows[r];
  float c[kChunk];
  float s[kChunk];
  load_values(turn.cos.row<Table>(position) + pair, left, turn.cos.vector, c);
  load_values(turn.sin.row<Table>(position) + pair, left, turn.sin.vector, s);
  T* begin = turn.x.row<T>(r) + static_cast<int64_t>(head) * turn.head_stride;
  // Pairs (i, i + half); interleaved, a and b are the first and the last four pairs.
  T* first_values = begin + (turn.interleaved ? 2 * pair : pair);
  T* second_values = first_values + (turn.interleaved ? kChunk : turn.half);
  const int first_left = turn.interleaved ? 2 * left : left;
  const int second_left = turn.interleaved ? 2 * left - kChunk : left;
  float a[kChunk];
  float b[kChunk];
  load_values(first_values, first_left, turn.x.vector, a);
  load_values(second_values, second_left, turn.x.vector, b);
  if (turn.interleaved) {
#pragma unroll
    for (int i = 0; i < kChunk / 2; ++i) {
      const float a0 = a[2 * i], a1 = a[2 * i + 1], b0 = b[2 * i], b1 = b[2 * i + 1];
      a[2 * i] = turned<Table>(a0, c[i], a1, -s[i]);
      a[2 * i + 1] = turned<Table>(a1, c[i], a0, s[i]);
      b[2 * i] = turned<Table>(b0, c[i + kChunk / 2], b1, -s[i + kChunk / 2]);
      b[2 * i + 1] = turned<Table>(b1, c[i + kChunk / 2], b0, s[i + kChunk / 2]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float x = a[i], y = b[i];
      a[i] = turned<Table>(x, c[i], y, -s[i]);
      b[i] = turned<Table>(y, c[i], x, s[i]);
    }
  }
  store_values(first_values, first_left, turn.x.vector, a);
  store_values(second_values, second_left, turn.x.vector, b);
}

template <typename T, typename Table>
void rotate_rows(Turn turn, int64_t count, cudaStream_t stream) {
  turn.x.vector = turn.x.vector && turn.head_stride % kChunk == 0 && turn.half % kChunk == 0;
  const int64_t per_head = (turn.half + kChunk - 1) / kChunk;
  const int64_t per_row = per_head * turn.heads;
  for_parts(count, per_row, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
    turn_pairs<T, Table><<<blocks, kThreads, 0, stream>>>(turn, first, rows, static_cast<uint32_t>(per_row),
                                                          static_cast<uint32_t>(per_head));
  });
  check_launch("rotary embeddings");
}

// --- values

/// x = min(max(x, -limit), limit); NaN stays NaN.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    clamp_chunks(const __grid_constant__ Rows x, float limit, uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float v[kChunk];
  load_chunk<T>(x, r, at.col, v);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const float value = v[i] > limit ? limit : v[i];
    v[i] = value < -limit ? -limit : value;
  }
  store_chunk<T>(x, r, at.col, v);
}

__global__ void __launch_bounds__(kThreads)
    round_chunks(const __grid_constant__ Rows x, uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float v[kChunk];
  load_chunk<float>(x, r, at.col, v);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = bf(v[i]);
  store_chunk<float>(x, r, at.col, v);
}

int64_t chunks_in(int64_t cols) { return (cols + kChunk - 1) / kChunk; }

/// Rows picked by number, as units of 16 bytes or of an element.
template <typename Unit>
__global__ void __launch_bounds__(kThreads)
    gather_units(const Unit* from, int64_t from_stride, const int32_t* rows, Unit* to, int64_t to_stride,
                 uint32_t first, uint32_t count, uint32_t units) {
  const uint64_t index = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= static_cast<uint64_t>(count) * units) return;
  const auto small = static_cast<uint32_t>(index);
  const uint32_t row = small / units;
  const int64_t r = int64_t{first} + row;
  const int64_t c = small - row * units;
  to[r * to_stride + c] = from[rows[r] * from_stride + c];
}

/// `per`: elements of a unit.
template <typename Unit>
void gather_rows(const View& from, const int32_t* rows, const View& to, int64_t per, cudaStream_t stream) {
  const int64_t units = to.cols / per;
  for_parts(to.rows, units, [&](uint32_t first, uint32_t count, uint32_t blocks) {
    gather_units<<<blocks, kThreads, 0, stream>>>(static_cast<const Unit*>(from.data), from.stride / per, rows,
                                                  static_cast<Unit*>(to.data), to.stride / per, first, count,
                                                  static_cast<uint32_t>(units));
  });
  check_launch("gathering rows");
}

}  // namespace

void embed_rows(const View& table, const int32_t* tokens, float multiplier, const View& positions,
                const int32_t* places, const View& out, cudaStream_t stream) {
  const Lookup words{make_rows(table), table.type, tokens};
  const Lookup learned{make_rows(positions), positions.type, places};
  const Rows to = make_rows(out);
  const int64_t chunks = chunks_in(out.cols);
  for_parts(out.rows, chunks, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
    const auto per_row = static_cast<uint32_t>(chunks);
    if (out.type == DType::bf16) {
      embed_chunks<BFloat16><<<blocks, kThreads, 0, stream>>>(words, multiplier, learned, to, first, rows, per_row);
    } else {
      embed_chunks<float><<<blocks, kThreads, 0, stream>>>(words, multiplier, learned, to, first, rows, per_row);
    }
  });
  check_launch("embeddings");
}

}  // namespace cuda

void CudaBackend::copy(const Tensor& from, Tensor& to) {
  assert(from.dtype() == to.dtype() && from.rows() == to.rows() && from.cols() == to.cols());
  if (from.rows() == 0 || from.cols() == 0) return;
  const size_t size = dtype_size(from.dtype());
  cuda::check(cudaMemcpy2DAsync(to.data(), static_cast<size_t>(to.stride()) * size, from.data(),
                                static_cast<size_t>(from.stride()) * size, static_cast<size_t>(from.cols()) * size,
                                static_cast<size_t>(from.rows()), cudaMemcpyDeviceToDevice, stream()),
              "copying an activation");
}

void CudaBackend::zero(Tensor& x) {
  if (x.rows() == 0 || x.cols() == 0) return;
  const size_t size = dtype_size(x.dtype());
  cuda::check(cudaMemset2DAsync(x.data(), static_cast<size_t>(x.stride()) * size, 0,
                                static_cast<size_t>(x.cols()) * size, static_cast<size_t>(x.rows()), stream()),
              "clearing an activation");
}

void CudaBackend::rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) {
  const DType tables = rotary.cos->dtype();
  const auto half = static_cast<int>(rotary.cos->cols());
  assert(x.cols() >= static_cast<int64_t>(heads - 1) * head_stride + 2 * half);
  assert(2 * half <= head_stride && rotary.sin->cols() == rotary.cos->cols());
  assert(rotary.sin->dtype() == tables && (tables == x.dtype() || tables == DType::f32));
  assert(static_cast<int64_t>(rotary.rows.size()) == x.rows());
  if (x.rows() == 0 || heads == 0 || half == 0) return;
  const auto rows = to_device(rotary.rows);
  const cuda::Turn turn{cuda::make_rows(cuda::view(x)),
                        cuda::make_rows(cuda::view(*rotary.cos)),
                        cuda::make_rows(cuda::view(*rotary.sin)),
                        rows.get(),
                        heads,
                        head_stride,
                        half,
                        rotary.interleaved};
  if (x.dtype() == DType::f32) {
    cuda::rotate_rows<float, float>(turn, x.rows(), stream());
  } else if (tables == DType::f32) {
    cuda::rotate_rows<BFloat16, float>(turn, x.rows(), stream());
  } else {
    cuda::rotate_rows<BFloat16, BFloat16>(turn, x.rows(), stream());
  }
}

void CudaBackend::clamp(Tensor& x, float limit) {
  assert(limit >= 0);
  const cuda::Rows rows = cuda::make_rows(cuda::view(x));
  const int64_t chunks = cuda::chunks_in(x.cols());
  cuda::for_parts(x.rows(), chunks, [&](uint32_t first, uint32_t count, uint32_t blocks) {
    const auto per_row = static_cast<uint32_t>(chunks);
    if (x.dtype() == DType::bf16) {
      cuda::clamp_chunks<BFloat16><<<blocks, cuda::kThreads, 0, stream()>>>(rows, limit, first, count, per_row);
    } else {
      cuda::clamp_chunks<float><<<blocks, cuda::kThreads, 0, stream()>>>(rows, limit, first, count, per_row);
    }
  });
  cuda::check_launch("clamping");
}

void CudaBackend::round_to_bf16(Tensor& x) {
  if (x.dtype() == DType::bf16) return;
  const cuda::Rows rows = cuda::make_rows(cuda::view(x));
  const int64_t chunks = cuda::chunks_in(x.cols());
  cuda::for_parts(x.rows(), chunks, [&](uint32_t first, uint32_t count, uint32_t blocks) {
    cuda::round_chunks<<<blocks, cuda::kThreads, 0, stream()>>>(rows, first, count, static_cast<uint32_t>(chunks));
  });
  cuda::check_launch("rounding");
}

void CudaBackend::add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) {
  assert(a.rows() == b.rows() && a.cols() == b.cols() && out.rows() == b.rows() && out.cols() == b.cols());
  assert(b.dtype() == out.dtype() && (a.dtype() == b.dtype() || a.dtype() == DType::f32));
  cuda::Finish step;
  step.multiplier = multiplier;
  const cuda::View in = cuda::view(a);
  const cuda::View residual = cuda::view(b);
  const cuda::View result = cuda::view(out);
  if (out.dtype() == DType::f32) {
    cuda::launch_finish<float, float>(step, in, residual, result, stream());
  } else if (a.dtype() == DType::f32) {
    cuda::launch_finish<float, BFloat16>(step, in, residual, result, stream());
  } else {
    cuda::launch_finish<BFloat16, BFloat16>(step, in, residual, result, stream());
  }
}

Tensor CudaBackend::gather(const Tensor& x, std::span<const int32_t> rows) {
  Tensor result = empty(x.dtype(), static_cast<int64_t>(rows.size()), x.cols());
  if (rows.empty() || x.cols() == 0) return result;
  assert(std::all_of(rows.begin(), rows.end(), [&](int32_t r) { return r >= 0 && r < x.rows(); }));
  const auto which = to_device(rows);
  const auto size = static_cast<int64_t>(dtype_size(x.dtype()));
  const cuda::View from = cuda::view(x);
  const cuda::View to = cuda::view(result);
  const bool vector = cuda::make_rows(from).vector && cuda::make_rows(to).vector && x.cols() * size % 16 == 0;
  if (vector) {
    cuda::gather_rows<uint4>(from, which.get(), to, 16 / size, stream());
  } else if (size == 2) {
    cuda::gather_rows<uint16_t>(from, which.get(), to, 1, stream());
  } else {
    cuda::gather_rows<uint32_t>(from, which.get(), to, 1, stream());
  }
  return result;
}

}  // namespace mxlm
