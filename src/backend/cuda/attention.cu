#include <cassert>
#include <cmath>
#include <cstdint>

#include "backend/cuda/attention.hpp"
#include "backend/cuda/attention_mma.cuh"

namespace mxlm::cuda {
namespace {

using namespace mma;

constexpr int kThreads = 128;  // four warps of 16 queries each
constexpr int kQueries = static_cast<int>(kFlashQueries);
static_assert(kQueries == kThreads / 32 * 16);

struct FlashArgs {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  const AttentionTile* tiles;
  int64_t q_row, q_head, k_row, v_row, kv_head, out_row;
  int group, head_dim;
  int sliding_window;
  float scale, softcap;
  const float* slopes;
  const float* sinks;
  bool vector;      // q, k and v can be read 16 bytes at a time
  bool vector_out;  // out can be written two elements at a time
};

/// Rows in shared memory: `dim` columns, of which those from head_dim on are zero, and a gap against bank conflicts.
template <typename T, int dim>
struct Rows {
  static constexpr int kChunk = 16 / sizeof(T);
  static constexpr int kStride = dim + kChunk;
};

/// The first `valid` of `rows` rows; the others become zeros. Ends with wait_for_copies and __syncthreads of the
/// caller.
template <typename T, int dim>
__device__ void load_rows(T* to, const T* from, int64_t stride, int rows, int valid, int head_dim, bool vector) {
  using R = Rows<T, dim>;
  if (vector) {
    const int chunks = head_dim / R::kChunk;
    for (int i = static_cast<int>(threadIdx.x); i < rows * chunks; i += kThreads) {
      const int row = i / chunks;
      const int column = (i - row * chunks) * R::kChunk;
      const bool is_valid = row < valid;
      copy_async(to + row * R::kStride + column, is_valid ? from + row * stride + column : from, is_valid);
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < rows * head_dim; i += kThreads) {
      const int row = i / head_dim;
      const int column = i - row * head_dim;
      to[row * R::kStride + column] = row < valid ? from[row * stride + column] : T{};
    }
  }
}

/// scores = Q K^T of a warp's 16 queries and `keys` keys.
template <int dim, int keys>
__device__ void multiply_keys(const BFloat16* q, const BFloat16* k, float (&scores)[keys / 8][4]) {
  constexpr int kStride = Rows<BFloat16, dim>::kStride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane % 8;
  const int matrix = lane / 8;
#pragma unroll
  for (int column = 0; column < dim; column += 16) {
    uint32_t a[4];  // rows 0 and 8 of columns 0, then of columns 8
    load_matrices(a, q + (row + matrix % 2 * 8) * kStride + column + matrix / 2 * 8);
#pragma unroll
    for (int i = 0; i < keys / 8; i += 2) {
      uint32_t b[4];  // columns 0 and 8 of keys 0, then of keys 8
      load_matrices(b, k + (8 * i + row + matrix / 2 * 8) * kStride + column + matrix % 2 * 8);
      multiply_bf16(scores[i], a, b[0], b[1]);
      multiply_bf16(scores[i + 1], a, b[2], b[3]);
    }
  }
}

template <int dim, int keys>
__device__ void multiply_keys(const float* q, const float* k, float (&scores)[keys / 8][4]) {
  constexpr int kStride = Rows<float, dim>::kStride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll 4
  for (int column = 0; column < dim; column += 8) {
    const float* at = q + g * kStride + column + t;
    const Left<true> a(at[0], at[8 * kStride], at[4], at[8 * kStride + 4]);
#pragma unroll
    for (int i = 0; i < keys / 8; ++i) {
      const float* key = k + (8 * i + g) * kStride + column + t;
      add_product(scores[i], a, key[0], key[4]);
    }
  }
}

/// output += P V, with P where multiply_keys had the scores.
template <int dim, int keys>
__device__ void multiply_values(const float (&p)[keys / 8][4], const BFloat16* v, float (&output)[dim / 8][4]) {
  constexpr int kStride = Rows<BFloat16, dim>::kStride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane % 8;
  const int matrix = lane / 8;
#pragma unroll
  for (int i = 0; i < keys / 8; i += 2) {
    const uint32_t a[4] = {pack_bf16(p[i][0], p[i][1]), pack_bf16(p[i][2], p[i][3]),
                           pack_bf16(p[i + 1][0], p[i + 1][1]), pack_bf16(p[i + 1][2], p[i + 1][3])};
#pragma unroll
    for (int n = 0; n < dim / 8; n += 2) {
      uint32_t b[4];  // keys 0 and 8 of columns 0, then of columns 8
      load_matrices_transposed(b, v + (8 * i + row + matrix % 2 * 8) * kStride + 8 * n + matrix / 2 * 8);
      multiply_bf16(output[n], a, b[0], b[1]);
      multiply_bf16(output[n + 1], a, b[2], b[3]);
    }
  }
}

template <int dim, int keys>
__device__ void multiply_values(const float (&p)[keys / 8][4], const float* v, float (&output)[dim / 8][4]) {
  constexpr int kStride = Rows<float, dim>::kStride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int i = 0; i < keys / 8; ++i) {
    // The product's key t is key 2t here, and t + 4 is 2t + 1: so P is where it has to be.
    const Left<true> a(p[i][0], p[i][2], p[i][1], p[i][3]);
    const float* key = v + (8 * i + 2 * t) * kStride + g;
#pragma unroll
    for (int n = 0; n < dim / 8; ++n) add_product(output[n], a, key[8 * n], key[kStride + 8 * n]);
  }
}

/// One tile of queries of one head (blockIdx.y). `dim` is head_dim rounded up.
template <typename T, int dim, int keys>
__global__ __launch_bounds__(kThreads) void flash_kernel(const FlashArgs args) {
  using R = Rows<T, dim>;
  static_assert(keys * 4 / 8 <= 32);
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  T* const q_tile = reinterpret_cast<T*>(shared_bytes);
  T* const k_tile = q_tile + kQueries * R::kStride;
  T* const v_tile = k_tile + keys * R::kStride;

  const AttentionTile tile = args.tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y);
  const int64_t kv_column = head / args.group * args.kv_head;
  const int64_t first = tile.first;
  const T* const k_rows = static_cast<const T*>(args.k) + first * args.k_row + kv_column;
  const T* const v_rows = static_cast<const T*>(args.v) + first * args.v_row + kv_column;
  const int rows = min(kQueries, tile.length - tile.begin);

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int low_query = tile.begin + warp_row;
  const int high_query = low_query + 15;

  const float slope = args.slopes == nullptr ? 0 : args.slopes[head];
  const ScoreTransform transform(args.scale, args.softcap, slope);
  const float sink = args.sinks == nullptr ? -INFINITY : args.sinks[head] * kLog2e;
  // Of rows g and g + 8. A sum is spread over the four threads of its row.
  float maximum[2] = {sink, sink};
  const float start = sink != -INFINITY && t == 0 ? 1 : 0;
  float sum[2] = {start, start};
  float output[dim / 8][4];
#pragma unroll
  for (auto& part : output) {
#pragma unroll
    for (float& x : part) x = 0;
  }

  if (args.head_dim < dim) {
    const int width = dim - args.head_dim;
    for (int i = static_cast<int>(threadIdx.x); i < (kQueries + 2 * keys) * width; i += kThreads) {
      const int row = i / width;
      q_tile[row * R::kStride + args.head_dim + i - row * width] = T{};
    }
  }
  load_rows<T, dim>(q_tile, static_cast<const T*>(args.q) + (first + tile.begin) * args.q_row + head * args.q_head,
                    args.q_row, kQueries, rows, args.head_dim, args.vector);

  const int key_end = min(tile.begin + rows, tile.limit);
  const int first_block = args.sliding_window == 0 ? 0 : max(tile.begin - args.sliding_window + 1, 0) / keys;
  const int end_block = (key_end + keys - 1) / keys;
  const auto load_block = [&](T* to, const T* from, int64_t stride, int block) {
    load_rows<T, dim>(to, from + int64_t{block} * keys * stride, stride, keys, tile.limit - block * keys, args.head_dim,
                      args.vector);
  };
  if (first_block < end_block) load_block(k_tile, k_rows, args.k_row, first_block);

  for (int block = first_block; block < end_block; ++block) {
    wait_for_copies();
    __syncthreads();  // the keys are there, and nobody reads the values of the block before
    load_block(v_tile, v_rows, args.v_row, block);

    const int key = block * keys;
    const bool seen =
        key <= high_query && (args.sliding_window == 0 || key + keys - 1 > low_query - args.sliding_window);
    float scores[keys / 8][4];
#pragma unroll
    for (auto& part : scores) {
#pragma unroll
      for (float& x : part) x = 0;
    }
    if (seen) {
      multiply_keys<dim, keys>(q_tile + warp_row * R::kStride, k_tile, scores);
      // A bit for each score: whether its query sees its key.
      uint32_t visible = 0xffffffffU;
      const bool all_visible = key + keys - 1 <= low_query && key + keys <= tile.limit &&
                               (args.sliding_window == 0 || key > high_query - args.sliding_window);
      if (!all_visible) {
#pragma unroll
        for (int i = 0; i < keys / 8; ++i) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const int k = key + 8 * i + 2 * t + c % 2;
            const int q = low_query + g + c / 2 * 8;
            const bool sees = k <= q && k < tile.limit && (args.sliding_window == 0 || k > q - args.sliding_window);
            if (!sees) visible &= ~(1U << (4 * i + c));
          }
        }
      }
      if (transform.needed) {
#pragma unroll
        for (int i = 0; i < keys / 8; ++i) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const int distance = key + 8 * i + 2 * t + c % 2 - (low_query + g + c / 2 * 8);
            scores[i][c] = transform(scores[i][c], distance);
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float largest = -INFINITY;
#pragma unroll
        for (int i = 0; i < keys / 8; ++i) {
#pragma unroll
          for (int c = 2 * half; c < 2 * half + 2; ++c) {
            if ((visible >> (4 * i + c) & 1U) != 0) largest = fmaxf(largest, scores[i][c]);
          }
        }
        const float before = maximum[half];
        const float now = fmaxf(before, quad_max(largest) * transform.log2_scale);
        const float factor = before == -INFINITY ? 0 : exp2f(before - now);
        maximum[half] = now;
        float added = 0;
#pragma unroll
        for (int i = 0; i < keys / 8; ++i) {
#pragma unroll
          for (int c = 2 * half; c < 2 * half + 2; ++c) {
            const bool sees = (visible >> (4 * i + c) & 1U) != 0;
            const float p = sees ? exp2f(fmaf(scores[i][c], transform.log2_scale, -now)) : 0.0F;
            scores[i][c] = p;
            added += p;
          }
        }
        sum[half] = fmaf(sum[half], factor, added);
#pragma unroll
        for (int n = 0; n < dim / 8; ++n) {
          output[n][2 * half] *= factor;
          output[n][2 * half + 1] *= factor;
        }
      }
    }

    wait_for_copies();
    __syncthreads();  // the values are there, and nobody reads the keys
    if (block + 1 < end_block) load_block(k_tile, k_rows, args.k_row, block + 1);
    if (seen) multiply_values<dim, keys>(scores, v_tile, output);
  }
  wait_for_copies();  // of the queries, where there was no key to see

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = quad_sum(sum[half]);
    const float divisor = total == 0 ? 1 : total;
    const int row = warp_row + g + half * 8;
    if (row >= rows) continue;
    T* const out = static_cast<T*>(args.out) + (first + tile.begin + row) * args.out_row +
                   static_cast<int64_t>(head) * args.head_dim;
#pragma unroll
    for (int n = 0; n < dim / 8; ++n) {
      const int column = 8 * n + 2 * t;
      const float y0 = output[n][2 * half] / divisor;
      const float y1 = output[n][2 * half + 1] / divisor;
      if (args.vector_out && column + 1 < args.head_dim) {
        if constexpr (sizeof(T) == 2) {
          *reinterpret_cast<uint32_t*>(out + column) = pack_bf16(y0, y1);
        } else {
          *reinterpret_cast<float2*>(out + column) = make_float2(y0, y1);
        }
      } else {
        if (column < args.head_dim) store(y0, out[column]);
        if (column + 1 < args.head_dim) store(y1, out[column + 1]);
      }
    }
  }
}

template <typename T, int dim, int keys>
void launch(const FlashArgs& args, int64_t tiles, int heads, cudaStream_t stream) {
  constexpr int kBytes = (kQueries + 2 * keys) * Rows<T, dim>::kStride * static_cast<int>(sizeof(T));
  static_assert(kBytes <= 99 * 1024);  // what a block may have on GPUs of compute capability 8.6, 8.9 and 12.0
  const auto kernel = flash_kernel<T, dim, keys>;
  if (kBytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes), "setting up attention");
  }
  kernel<<<dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(heads)), kThreads, kBytes, stream>>>(args);
  check_launch("computing attention");
}

template <typename T>
void launch_for_dim(const FlashArgs& args, int64_t tiles, int heads, cudaStream_t stream) {
  // The widest heads take fewer keys at a time, for the registers and for GPUs with less shared memory than Hopper.
  constexpr int kWideKeys = sizeof(T) == 2 ? 32 : 16;
  if (args.head_dim <= 32) return launch<T, 32, 64>(args, tiles, heads, stream);
  if (args.head_dim <= 64) return launch<T, 64, 64>(args, tiles, heads, stream);
  if (args.head_dim <= 96) return launch<T, 96, 64>(args, tiles, heads, stream);
  if (args.head_dim <= 128) return launch<T, 128, 64>(args, tiles, heads, stream);
  launch<T, 256, kWideKeys>(args, tiles, heads, stream);
}

/// True if rows of this view can be read `elements` at a time from every head on.
bool is_aligned(const View& view, int64_t head, int64_t elements, size_t size) {
  return reinterpret_cast<uintptr_t>(view.data) % (static_cast<size_t>(elements) * size) == 0 &&
         view.stride % elements == 0 && head % elements == 0;
}

}  // namespace

void flash_attention(const AttentionProblem& p, cudaStream_t stream) {
  if (p.tile_count == 0 || p.heads == 0) return;
  assert(p.head_dim > 0 && p.head_dim <= 256 && p.heads <= 65535);
  const size_t size = dtype_size(p.q.type);
  const int64_t chunk = 16 / static_cast<int64_t>(size);
  FlashArgs args{};
  args.q = p.q.data;
  args.k = p.k.data;
  args.v = p.v.data;
  args.out = p.out.data;
  args.tiles = p.tiles;
  args.q_row = p.q.stride;
  args.q_head = p.q_head;
  args.k_row = p.k.stride;
  args.v_row = p.v.stride;
  args.kv_head = p.kv_head;
  args.out_row = p.out.stride;
  args.group = p.heads / p.kv_heads;
  args.head_dim = p.head_dim;
  // Windows that see everything are none.
  args.sliding_window = p.sliding_window > (int64_t{1} << 30) ? 0 : static_cast<int>(p.sliding_window);
  args.scale = p.scale;
  args.softcap = p.softcap;
  args.slopes = p.slopes;
  args.sinks = p.sinks;
  args.vector = p.head_dim % chunk == 0 && is_aligned(p.q, p.q_head, chunk, size) &&
                is_aligned(p.k, p.kv_head, chunk, size) && is_aligned(p.v, p.kv_head, chunk, size);
  args.vector_out = is_aligned(p.out, p.head_dim, 2, size);
  if (p.q.type == DType::bf16) {
    launch_for_dim<BFloat16>(args, p.tile_count, p.heads, stream);
  } else {
    launch_for_dim<float>(args, p.tile_count, p.heads, stream);
  }
}

}  // namespace mxlm::cuda
