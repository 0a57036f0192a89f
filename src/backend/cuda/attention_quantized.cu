// Attention whose products are quantised, or whose every operation is rounded to bfloat16: mirrors
// backend/cpu/attention_quantized.cpp. Each warp takes 16 queries of a head and holds their rows of scores in scratch:
// scores, normalised softmax, quantised P, product.

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>

#include "backend/cuda/attention.hpp"
#include "backend/cuda/attention_mma.cuh"
#include "mx/quantize.hpp"
#include "mx/reference_format.hpp"

namespace mxlm::cuda {
namespace {

using namespace mma;

constexpr int kThreads = 128;
constexpr int kRows = static_cast<int>(kQuantisedQueries);
constexpr int kColumns = 64;  // of a product that are computed at a time

/// An operand spec as a kernel takes it.
struct Side {
  bool quantised = false;
  bool bf16 = false;  // its product reads bfloat16s
  mx::Format format;
};

/// True if both operands of a product are bfloat16 values.
bool fits_bf16(const ProductSpec& spec, DType model) {
  const auto fits = [&](const OperandSpec& side) {
    return side ? mx::decodes_exactly_to_bf16(*side) : model == DType::bf16;
  };
  return fits(spec.weights) && fits(spec.activations);
}

Side side_of(const OperandSpec& spec, bool bf16) {
  Side side;
  side.bf16 = bf16;
  if (spec) {
    assert(!mx::has_row_scales(*spec));  // variants refuse those in attention
    side.quantised = true;
    side.format = *spec;
  }
  return side;
}

/// Quantises and decodes n values in place, by a whole warp, and rounds them to what the product reads. The caller
/// has synchronised the warp, and does so afterwards.
__device__ void make_operand(const Side& side, float* x, int64_t n) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const mx::Format& f = side.format;
  if (!side.quantised) return;
  const auto rounded = [&](float y) { return side.bf16 ? round_bf16(y) : y; };
  if (f.scaling != mx::Scaling::block) {
    for (int64_t i = lane; i < n; i += 32) {
      float y = 0;
      if (f.scaling == mx::Scaling::none) {
        y = mx::cast_decode(f, x[i]);
      } else {
        mx::quantize_decode_block(f, x + i, 1, &y);
      }
      x[i] = rounded(y);
    }
    return;
  }
  const int64_t block = f.block_size == 0 ? n : f.block_size;
  if (f.rule == mx::ScaleRule::mse) {  // sums over a block in order: a lane for each
    for (int64_t start = lane * block; start < n; start += 32 * block) {
      const int64_t length = min(block, n - start);
      mx::quantize_decode_block(f, x + start, length, x + start);
      for (int64_t i = start; i < start + length; ++i) x[i] = rounded(x[i]);
    }
    return;
  }
  for (int64_t start = 0; start < n; start += block) {
    const int64_t end = min(start + block, n);
    uint32_t amax = 0;
    for (int64_t i = start + lane; i < end; i += 32) amax = max(amax, __float_as_uint(x[i]) & mx::detail::kMagnitude);
    amax = __reduce_max_sync(kAllLanes, amax);
    const int e = mx::shared_exponent(f, amax);
    for (int64_t i = start + lane; i < end; i += 32) {
      x[i] = e == mx::kNanExponent ? mx::detail::float_of(mx::detail::kQuietNan)
                                   : rounded(mx::quantize_decode(f.element, f.rounding, e, x[i]));
    }
  }
}

/// Rows of heads in float32: out[(row * heads + h) * head_dim + i]. A warp for each head of a row.
template <typename T>
__global__ void heads_kernel(Side side, const T* in, int64_t row_stride, int64_t head_stride, int64_t rows, int heads,
                             int head_dim, float* out) {
  const int64_t task = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (task >= rows * heads) return;
  const int64_t row = task / heads;
  const T* from = in + row * row_stride + (task - row * heads) * head_stride;
  float* to = out + task * head_dim;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < head_dim; i += 32) to[i] = load(from[i]);
  __syncwarp();
  make_operand(side, to, head_dim);
}

/// V with its keys along the rows: out[(h * head_dim + i) * rows + row].
template <typename T>
__global__ void transpose_kernel(const T* in, int64_t row_stride, int64_t head_stride, int64_t rows, int head_dim,
                                 float* out) {
  __shared__ float tile[32][33];
  const int64_t first_row = int64_t{blockIdx.x} * 32;
  const int first_column = static_cast<int>(blockIdx.y) * 32;
  const int64_t head = blockIdx.z;
  const int x = static_cast<int>(threadIdx.x);
  for (int y = static_cast<int>(threadIdx.y); y < 32; y += 8) {
    const int column = first_column + x;
    if (first_row + y < rows && column < head_dim) {
      tile[y][x] = load(in[(first_row + y) * row_stride + head * head_stride + column]);
    }
  }
  __syncthreads();
  for (int y = static_cast<int>(threadIdx.y); y < 32; y += 8) {
    const int column = first_column + y;
    if (first_row + x < rows && column < head_dim) out[(head * head_dim + column) * rows + first_row + x] = tile[x][y];
  }
}

/// Quantises the transposed V along the keys of each window. A warp for each column of a window.
__global__ void values_kernel(Side side, const int64_t* offsets, int64_t windows, int64_t columns, int64_t rows,
                              float* values) {
  const int64_t task = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (task >= windows * columns) return;
  const int64_t window = task / columns;
  make_operand(side, values + (task - window * columns) * rows + offsets[window],
               offsets[window + 1] - offsets[window]);
}

/// out[i, j] = sum over k of a[i, k] b[j, k] for i < rows <= 16, j < cols, in order of k: by a whole warp. `write(i, j,
/// value)` takes the results.
template <bool split, typename Write>
__device__ void multiply(const float* a, int64_t a_stride, int rows, const float* b, int64_t b_stride, int64_t cols,
                         int64_t depth, const Write& write) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  for (int64_t first = 0; first < cols; first += kColumns) {
    float sum[kColumns / 8][4];
#pragma unroll
    for (auto& part : sum) {
#pragma unroll
      for (float& x : part) x = 0;
    }
    for (int64_t k = 0; k < depth; k += 8) {
      const bool low = k + t < depth;
      const bool high = k + t + 4 < depth;
      const float* at = a + g * a_stride + k + t;
      const Left<split> left(low && g < rows ? at[0] : 0.0F, low && g + 8 < rows ? at[8 * a_stride] : 0.0F,
                             high && g < rows ? at[4] : 0.0F, high && g + 8 < rows ? at[8 * a_stride + 4] : 0.0F);
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        const int64_t column = first + 8 * n + g;
        const float* right = b + column * b_stride + k + t;
        const bool there = column < cols;
        add_product(sum[n], left, there && low ? right[0] : 0.0F, there && high ? right[4] : 0.0F);
      }
    }
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int row = g + c / 2 * 8;
        const int64_t column = first + 8 * n + 2 * t + c % 2;
        if (row < rows && column < cols) write(row, column, sum[n][c]);
      }
    }
  }
}

__device__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
template <typename T>
__device__ T warp_sum(T x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

struct QuantisedArgs {
  const float* q;  // [rows, heads, head_dim]
  const float* k;  // [rows, kv_heads, head_dim]
  const float* v;  // [kv_heads, head_dim, rows]
  void* out;
  const AttentionTile* tiles;
  int64_t tile_count;
  int64_t rows, out_row, sliding_window, score_stride, warps;
  int heads, kv_heads, head_dim;
  float scale, softcap;
  const float* slopes;
  const float* sinks;
  Side p;
  bool qk_bf16, pv_bf16;
  Arithmetic arithmetic;
  float* scores;
};

/// Scores [from, to) of a query to probabilities, in place, as T holds them.
template <typename T>
__device__ void softmax_row(const QuantisedArgs& args, int head, int64_t query, int64_t from, int64_t to, float* row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const ScoreTransform transform(args.scale, args.softcap, args.slopes == nullptr ? 0 : args.slopes[head]);
  const float sink = args.sinks == nullptr ? -INFINITY : args.sinks[head] * kLog2e;
  float largest = -INFINITY;
  for (int64_t i = from + lane; i < to; i += 32) {
    if (transform.needed) row[i] = transform(row[i], static_cast<int>(i - query));
    largest = fmaxf(largest, row[i]);
  }
  const float maximum = fmaxf(sink, warp_max(largest) * transform.log2_scale);
  float sum = 0;
  for (int64_t i = from + lane; i < to; i += 32) {
    row[i] = exp2f(fmaf(row[i], transform.log2_scale, -maximum));
    sum += row[i];
  }
  sum = warp_sum(sum);
  if (sink != -INFINITY) sum += exp2f(sink - maximum);
  const float divisor = sum == 0 ? 1 : sum;
  for (int64_t i = from + lane; i < to; i += 32) {
    const float p = row[i] / divisor;
    row[i] = sizeof(T) == 2 ? round_bf16(p) : p;
  }
}

/// The same with each operation rounded to bfloat16: attention_row_bf16 in backend/cpu/bf16_ops.cpp.
__device__ void softmax_row_bf16(const QuantisedArgs& args, int head, int64_t query, int64_t from, int64_t to,
                                 float* row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float slope = args.slopes == nullptr ? 0 : args.slopes[head];
  float top = -INFINITY;
  for (int64_t i = from + lane; i < to; i += 32) {
    float score = round_bf16(row[i]) * args.scale;
    if (args.softcap != 0) score = args.softcap * round_bf16(tanhf(round_bf16(score / args.softcap)));
    if (slope != 0) score += slope * static_cast<float>(i - query);
    top = fmaxf(top, score);
    row[i] = score;
  }
  top = warp_max(top);
  double sum = 0;
  float shift = 0;
  double sink_part = 0;
  if (args.sinks != nullptr) {
    top = fmaxf(top, args.sinks[head]);
    shift = top;
    sink_part = round_bf16(expf(round_bf16(args.sinks[head] - top)));
    top = 0;
  }
  for (int64_t i = from + lane; i < to; i += 32) {
    const float score = args.sinks == nullptr ? row[i] : row[i] - shift;
    const float p = round_bf16(expf(round_bf16(round_bf16(score) - round_bf16(top))));
    row[i] = p;
    sum += p;
  }
  const float divisor = round_bf16(static_cast<float>(warp_sum(sum) + sink_part));
  for (int64_t i = from + lane; i < to; i += 32) row[i] = round_bf16(row[i] / divisor);
}

/// A warp takes 16 queries of a head after the other.
template <typename T>
__global__ __launch_bounds__(kThreads) void quantised_kernel(const QuantisedArgs args) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (warp >= args.warps) return;
  float* const scores = args.scores + warp * kRows * args.score_stride;
  const int64_t stride = args.score_stride;
  for (int64_t task = warp; task < args.tile_count * args.heads; task += args.warps) {
    const AttentionTile tile = args.tiles[task / args.heads];
    const int head = static_cast<int>(task % args.heads);
    const int64_t kv = head / (args.heads / args.kv_heads);
    const int64_t first = tile.first;
    const int rows = min(kRows, tile.length - tile.begin);

    // Keys that some query of the tile sees.
    const int64_t high = min(tile.begin + rows, tile.limit);
    const int64_t low = min(args.sliding_window == 0 ? 0 : max(tile.begin - args.sliding_window + 1, int64_t{0}), high);
    const float* q = args.q + ((first + tile.begin) * args.heads + head) * args.head_dim;
    const float* k = args.k + ((first + low) * args.kv_heads + kv) * args.head_dim;
    const int64_t q_stride = int64_t{args.heads} * args.head_dim;
    const int64_t k_stride = int64_t{args.kv_heads} * args.head_dim;
    const auto write_score = [&](int row, int64_t key, float x) { scores[row * stride + low + key] = x; };
    if (args.qk_bf16) {
      multiply<false>(q, q_stride, rows, k, k_stride, high - low, args.head_dim, write_score);
    } else {
      multiply<true>(q, q_stride, rows, k, k_stride, high - low, args.head_dim, write_score);
    }
    __syncwarp();

    for (int i = 0; i < rows; ++i) {
      float* row = scores + i * stride;
      const int64_t query = tile.begin + i;
      const int64_t seen = min(query + 1, int64_t{tile.limit});
      const int64_t from = min(args.sliding_window == 0 ? 0 : max(query - args.sliding_window + 1, int64_t{0}), seen);
      if (args.arithmetic == Arithmetic::bf16_rounded) {
        softmax_row_bf16(args, head, query, from, seen, row);
      } else {
        softmax_row<T>(args, head, query, from, seen, row);
      }
      // What a query may not see is zero. Blocks start at key 0.
      for (int64_t j = lane; j < from; j += 32) row[j] = 0;
      for (int64_t j = seen + lane; j < high; j += 32) row[j] = 0;
      __syncwarp();
      make_operand(args.p, row, seen);
    }
    __syncwarp();

    const float* v = args.v + kv * args.head_dim * args.rows + first;
    T* out = static_cast<T*>(args.out) + (first + tile.begin) * args.out_row + int64_t{head} * args.head_dim;
    const auto write_output = [&](int row, int64_t column, float x) {
      store(args.arithmetic == Arithmetic::bf16_rounded ? round_bf16(x) : x, out[row * args.out_row + column]);
    };
    if (args.pv_bf16) {
      multiply<false>(scores, stride, rows, v, args.rows, args.head_dim, high, write_output);
    } else {
      multiply<true>(scores, stride, rows, v, args.rows, args.head_dim, high, write_output);
    }
    __syncwarp();  // before the scores are overwritten
  }
}

template <typename T>
void run(const QuantisedProblem& quantised, float* q, float* k, float* v, float* scores, int64_t warps,
         cudaStream_t stream) {
  const AttentionProblem& p = quantised.problem;
  const bool qk_bf16 = fits_bf16(quantised.qk, p.q.type);
  const bool pv_bf16 = fits_bf16(quantised.pv, p.q.type);
  const auto blocks = [](int64_t tasks) { return static_cast<unsigned>((tasks * 32 + kThreads - 1) / kThreads); };
  const int64_t rows = quantised.rows;

  heads_kernel<T><<<blocks(rows * p.heads), kThreads, 0, stream>>>(side_of(quantised.qk.weights, qk_bf16), p.q.as<T>(),
                                                                   p.q.stride, p.q_head, rows, p.heads, p.head_dim, q);
  check_launch("quantising queries");
  heads_kernel<T><<<blocks(rows * p.kv_heads), kThreads, 0, stream>>>(
      side_of(quantised.qk.activations, qk_bf16), p.k.as<T>(), p.k.stride, p.kv_head, rows, p.kv_heads, p.head_dim, k);
  check_launch("quantising keys");
  const dim3 grid(static_cast<unsigned>((rows + 31) / 32), static_cast<unsigned>((p.head_dim + 31) / 32),
                  static_cast<unsigned>(p.kv_heads));
  transpose_kernel<T><<<grid, dim3(32, 8), 0, stream>>>(p.v.as<T>(), p.v.stride, p.kv_head, rows, p.head_dim, v);
  check_launch("transposing values");
  const int64_t columns = int64_t{p.kv_heads} * p.head_dim;
  values_kernel<<<blocks(quantised.windows * columns), kThreads, 0, stream>>>(
      side_of(quantised.pv.activations, pv_bf16), quantised.offsets, quantised.windows, columns, rows, v);
  check_launch("quantising values");

  QuantisedArgs args{};
  args.q = q;
  args.k = k;
  args.v = v;
  args.out = p.out.data;
  args.tiles = p.tiles;
  args.tile_count = p.tile_count;
  args.rows = rows;
  args.out_row = p.out.stride;
  args.sliding_window = p.sliding_window;
  args.score_stride = quantised.longest;
  args.warps = warps;
  args.heads = p.heads;
  args.kv_heads = p.kv_heads;
  args.head_dim = p.head_dim;
  args.scale = p.scale;
  args.softcap = p.softcap;
  args.slopes = p.slopes;
  args.sinks = p.sinks;
  args.p = side_of(quantised.pv.weights, pv_bf16);
  args.qk_bf16 = qk_bf16;
  args.pv_bf16 = pv_bf16;
  args.arithmetic = quantised.arithmetic;
  args.scores = scores;
  quantised_kernel<T><<<blocks(warps), kThreads, 0, stream>>>(args);
  check_launch("computing quantised attention");
}

}  // namespace

QuantisedScratch quantised_attention_scratch(const QuantisedProblem& quantised) {
  const AttentionProblem& p = quantised.problem;
  const auto heads_bytes = [&](int heads) {
    return static_cast<size_t>(quantised.rows * heads * p.head_dim) * sizeof(float);
  };
  return {.q = heads_bytes(p.heads),
          .k = heads_bytes(p.kv_heads),
          .v = heads_bytes(p.kv_heads),
          .scores_per_warp = static_cast<size_t>(kRows * quantised.longest) * sizeof(float)};
}

void quantised_attention(const QuantisedProblem& quantised, float* q, float* k, float* v, float* scores, int64_t warps,
                         cudaStream_t stream) {
  assert(warps > 0 && quantised.problem.kv_heads <= 65535);
  if (quantised.problem.q.type == DType::bf16) {
    run<BFloat16>(quantised, q, k, v, scores, warps, stream);
  } else {
    run<float>(quantised, q, k, v, scores, warps, stream);
  }
}

}  // namespace mxlm::cuda
