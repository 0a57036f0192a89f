// RMSNorm and LayerNorm. Sums are taken in one order that depends on the number of columns alone: each thread adds its
// values up, then lanes and warps are added in a tree.

#include <cassert>

#include "backend/cuda/operands.hpp"

namespace mxlm {
namespace cuda {
namespace {

/// A norm of rows (or groups of columns) of `cols` values.
struct Norm {
  Rows x, weight, bias;  // no data: none; a weight's row has the columns of all groups, or of one for all
  bool layer, rounds_twice, own_weight, own_bias;
  float epsilon, offset;
  int64_t cols;
};

/// A chunk as it is kept between the two passes over a row.
template <typename T>
struct Held {
  float values[kChunk];
  __device__ void set(const float (&x)[kChunk]) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) values[i] = x[i];
  }
  __device__ void get(float (&x)[kChunk]) const {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x[i] = values[i];
  }
};
template <>
struct Held<BFloat16> {
  uint4 packed;
  __device__ void set(const float (&x)[kChunk]) {
    packed = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
  }
  __device__ void get(float (&x)[kChunk]) const { unpack(packed, x); }
};

/// The sum over the threads of a team (a warp, or the block with `shared` of a value a warp), for all of them.
template <bool warp, typename V>
__device__ V team_sum(V value, V* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  if constexpr (warp) return value;
  __syncthreads();  // what was there has been read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  V sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += shared[w];
  return sum;
}

struct Moments {
  float mean, scale;
};

__device__ float inverse_root(float mean_square, float epsilon) { return 1.0F / sqrtf(mean_square + epsilon); }

/// As the CPU has it: from the sums around a first mean, of d = x - first and of d^2.
__device__ Moments layer_moments(float first, float sum, float squares, float count, float epsilon) {
  const float shift = sum / count;  // what rounding left of the mean
  const float variance = squares / count - shift * shift;
  return {first + shift, inverse_root(variance > 0 ? variance : 0.0F * variance, epsilon)};
}

__device__ void add_values(const float (&x)[kChunk], float& sum) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) sum += x[i];
}
__device__ void add_squares(const float (&x)[kChunk], float& sum) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) sum += x[i] * x[i];
}
__device__ void add_centered(const float (&x)[kChunk], int64_t c, int64_t cols, float first, float& sum,
                             float& squares) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const float d = c + i < cols ? x[i] - first : 0.0F;
    sum += d;
    squares += d * d;
  }
}

/// The normalised values of a chunk at column c of group g, as a tensor of type T holds them; zeros from `cols` on.
template <typename T>
__device__ void normalise(const Norm& norm, const Moments& m, int64_t g, int64_t c, float (&x)[kChunk]) {
  float weight[kChunk];
  float bias[kChunk];
  // The views' last column is that of this group.
  if (norm.weight.data != nullptr) load_chunk<T>(norm.weight, 0, (norm.own_weight ? g * norm.cols : 0) + c, weight);
  if (norm.bias.data != nullptr) load_chunk<T>(norm.bias, 0, (norm.own_bias ? g * norm.cols : 0) + c, bias);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    float v;
    if (norm.rounds_twice) {
      v = rounded<T>(x[i] * m.scale) * weight[i];
    } else {
      v = (norm.layer ? x[i] - m.mean : x[i]) * m.scale;
      if (norm.weight.data != nullptr) v *= weight[i] + norm.offset;
      if (norm.bias.data != nullptr) v += bias[i];
    }
    x[i] = c + i < norm.cols ? rounded<T>(v) : 0.0F;
  }
}

/// A block a row, which stays in registers: thread t holds chunks t, t + threads, ...
/// Blocks that are to fit a multiprocessor, so that some load while others compute.
constexpr int resident_blocks(int items, int max_threads, size_t size, bool folds) {
  if (folds) return (items <= 2 ? 768 : 512) / max_threads;
  const int threads = items == 1 ? 1536 : items == 2 ? (size == 2 ? 1280 : 1024) : items == 4 ? 768 : 512;
  return threads / max_threads;
}

template <typename T, int items, int max_threads, typename Sink>
__global__ void __launch_bounds__(max_threads,
                                  resident_blocks(items, max_threads, sizeof(T), std::is_same_v<Sink, FoldTargets>))
    norm_rows(const __grid_constant__ Norm norm, const __grid_constant__ Sink targets) {
  __shared__ float shared[max_threads / 32];
  const int64_t r = blockIdx.x;
  const int step = static_cast<int>(blockDim.x) * kChunk;
  const int start = static_cast<int>(threadIdx.x) * kChunk;
  Held<T> held[items];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < items; ++k) {
    const int64_t c = start + k * step;
    float x[kChunk] = {};
    if (c < norm.cols) load_chunk<T>(norm.x, r, c, x);
    held[k].set(x);
    norm.layer ? add_values(x, sum) : add_squares(x, sum);
  }
  sum = team_sum<false>(sum, shared);
  const auto count = static_cast<float>(norm.cols);
  Moments m{0, 0};
  if (norm.layer) {
    const float first = sum / count;
    float rest = 0;
    float squares = 0;
#pragma unroll
    for (int k = 0; k < items; ++k) {
      float x[kChunk];
      held[k].get(x);
      add_centered(x, start + k * step, norm.cols, first, rest, squares);
    }
    rest = team_sum<false>(rest, shared);
    squares = team_sum<false>(squares, shared);
    m = layer_moments(first, rest, squares, count, norm.epsilon);
  } else {
    m.scale = inverse_root(sum / count, norm.epsilon);
  }
  const auto get = [&](int k, float(&x)[kChunk]) {
    const int64_t c = start + k * step;
    held[k].get(x);
    if (c < norm.cols) normalise<T>(norm, m, 0, c, x);
  };
  if constexpr (std::is_same_v<Sink, FoldTargets>) {
    extern __shared__ uint4 row[];
    __shared__ int2 shared_fold[max_threads / 32 + 1];
    const auto for_chunks = [&](const auto& take) {
#pragma unroll
      for (int k = 0; k < items; ++k) {
        const int64_t c = start + k * step;
        float x[kChunk];
        get(k, x);
        if (c - (threadIdx.x % 32) * kChunk < norm.cols) take(c, x);  // whole warps
      }
    };
    for (int t = 0; t < targets.count; ++t) fold_row(targets.at[t], r, norm.cols, for_chunks, row, shared_fold);
  } else {
#pragma unroll
    for (int k = 0; k < items; ++k) {
      float x[kChunk];
      get(k, x);
      const uint32_t amax = largest_of(x);
      for (int t = 0; t < targets.count; ++t)
        write_target(targets.at[t], true, r, start + k * step, norm.cols, amax, x);
    }
  }
}

/// A team a group of columns, which is read again for each pass; into one tensor.
template <typename T, bool warp>
__global__ void __launch_bounds__(kThreads)
    norm_groups(const __grid_constant__ Norm norm, const __grid_constant__ Rows out, int64_t groups, int64_t total) {
  __shared__ float shared[kThreads / 32];
  const int64_t index = warp ? blockIdx.x * int64_t{kThreads / 32} + threadIdx.x / 32 : blockIdx.x;
  if (index >= total) return;  // the whole team
  const int64_t r = index / groups;
  const int64_t g = index - r * groups;
  const int64_t base = g * norm.cols;
  // Views that end with this group, read 16 bytes at a time only if every group begins at such a place.
  const bool vector = norm.cols % kChunk == 0;
  const auto group_of = [&](Rows rows) {
    rows.cols = base + norm.cols;
    rows.vector = rows.vector && vector;
    return rows;
  };
  const Rows x_rows = group_of(norm.x);
  const Rows out_rows = group_of(out);
  Norm own = norm;
  if (norm.own_weight) own.weight = group_of(norm.weight);
  if (norm.own_bias) own.bias = group_of(norm.bias);
  constexpr int kTeam = warp ? 32 : kThreads;
  const int64_t start = static_cast<int64_t>(threadIdx.x % kTeam) * kChunk;
  constexpr int64_t step = kTeam * kChunk;
  const auto count = static_cast<float>(norm.cols);
  float x[kChunk];
  float sum = 0;
  for (int64_t c = start; c < norm.cols; c += step) {
    load_chunk<T>(x_rows, r, base + c, x);
    norm.layer ? add_values(x, sum) : add_squares(x, sum);
  }
  sum = team_sum<warp>(sum, shared);
  Moments m{0, 0};
  if (norm.layer) {
    const float first = sum / count;
    float rest = 0;
    float squares = 0;
    for (int64_t c = start; c < norm.cols; c += step) {
      load_chunk<T>(x_rows, r, base + c, x);
      add_centered(x, c, norm.cols, first, rest, squares);
    }
    rest = team_sum<warp>(rest, shared);
    squares = team_sum<warp>(squares, shared);
    m = layer_moments(first, rest, squares, count, norm.epsilon);
  } else {
    m.scale = inverse_root(sum / count, norm.epsilon);
  }
  for (int64_t c = start; c < norm.cols; c += step) {
    load_chunk<T>(x_rows, r, base + c, x);
    normalise<T>(own, m, g, c, x);
    store_chunk<T>(out_rows, r, base + c, x);
  }
}

/// LayerNorm with every operation rounded to bfloat16 (backend/cpu/bf16_ops.cpp); a block a group. Sums in double,
/// whose terms are bfloat16s.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    layer_norm_bf16(const __grid_constant__ Norm norm, const __grid_constant__ Rows out, int64_t groups) {
  __shared__ double shared[kThreads / 32];
  const int64_t r = blockIdx.x / groups;
  const int64_t g = blockIdx.x - r * groups;
  const int64_t base = g * norm.cols;
  const T* x = norm.x.row<T>(r) + base;
  T* y = out.row<T>(r) + base;
  const T* weight = norm.weight.data == nullptr ? nullptr : norm.weight.row<T>(0) + (norm.own_weight ? base : 0);
  const T* bias = norm.bias.data == nullptr ? nullptr : norm.bias.row<T>(0) + (norm.own_bias ? base : 0);
  const int64_t n = norm.cols;
  const auto mean_of = [n](double sum) { return bf(bf(static_cast<float>(sum)) / static_cast<float>(n)); };
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += static_cast<double>(bf(load(x[i])));
  const float mean = mean_of(team_sum<false>(sum, shared));
  const auto shifted = [&](int64_t i) { return bf(bf(load(x[i])) - mean); };
  double squares = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) squares += static_cast<double>(bf(shifted(i) * shifted(i)));
  const float mean_square = mean_of(team_sum<false>(squares, shared));
  const float inverse = bf(1.0F / bf(sqrtf(bf(mean_square + norm.epsilon))));
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    float value = bf(shifted(i) * inverse);
    if (weight != nullptr) value = bf(bf(load(weight[i])) * value);
    if (bias != nullptr) value = bf(value + bf(load(bias[i])));
    store(value, y[i]);
  }
}

constexpr int64_t kWidest = int64_t{8} * 512 * kChunk;  // columns that fit a block's registers

/// True if rows stay in registers and may become operands at once.
bool in_registers(const NormArgs& args, int64_t cols) {
  return args.arithmetic != Arithmetic::bf16_rounded && (args.group == 0 || args.group == cols) &&
         padded(cols) <= kWidest;
}

Norm make_norm(const Tensor& x, const NormArgs& args) {
  const int64_t cols = args.group == 0 ? x.cols() : args.group;
  Norm norm{};
  norm.x = make_rows(view(x));
  if (args.weight != nullptr) norm.weight = make_rows(view(*args.weight));
  if (args.bias != nullptr) norm.bias = make_rows(view(*args.bias));
  norm.layer = args.kind == NormKind::layer;
  norm.rounds_twice = !norm.layer && args.round_before_weight && args.weight != nullptr;
  for (const Tensor* t : {args.weight, args.bias}) {
    assert(t == nullptr || (t->dtype() == x.dtype() && (t->cols() == x.cols() || t->cols() == args.group)));
    static_cast<void>(t);
  }
  norm.own_weight = args.weight != nullptr && args.weight->cols() != cols;
  norm.own_bias = args.bias != nullptr && args.bias->cols() != cols;
  norm.epsilon = args.epsilon;
  norm.offset = args.weight_offset;
  norm.cols = cols;
  return norm;
}

template <typename T, int items, int max_threads, typename Sink>
void launch_norm_rows(const Norm& norm, int64_t rows, int64_t chunks, const Sink& targets, cudaStream_t stream) {
  const int64_t threads = ((chunks + items - 1) / items + 31) / 32 * 32;
  const auto kernel = norm_rows<T, items, max_threads, Sink>;
  size_t held = 0;
  if constexpr (std::is_same_v<Sink, FoldTargets>) {
    held = static_cast<size_t>(held_chunks(norm.cols)) * sizeof(uint4);
    allow_shared(kernel, held);
  }
  kernel<<<static_cast<unsigned>(rows), static_cast<unsigned>(threads), held, stream>>>(norm, targets);
}

template <typename T, typename Sink>
void run_norm_rows(const Norm& norm, int64_t rows, const Sink& targets, cudaStream_t stream) {
  if (rows == 0 || norm.cols == 0) return;
  const int64_t chunks = padded(norm.cols) / kChunk;
  if (chunks <= 256) {
    launch_norm_rows<T, 1, 256>(norm, rows, chunks, targets, stream);
  } else if (chunks <= 512) {
    launch_norm_rows<T, 2, 256>(norm, rows, chunks, targets, stream);
  } else if (chunks <= 1024) {
    launch_norm_rows<T, 4, 256>(norm, rows, chunks, targets, stream);
  } else if (chunks <= 2048) {
    launch_norm_rows<T, 4, 512>(norm, rows, chunks, targets, stream);
  } else {
    launch_norm_rows<T, 8, 512>(norm, rows, chunks, targets, stream);
  }
  check_launch("a norm");
}

template <typename T>
void run_norm_groups(const Norm& norm, Arithmetic arithmetic, const View& out, cudaStream_t stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const int64_t groups = out.cols / norm.cols;
  const int64_t total = out.rows * groups;
  assert(total <= INT32_MAX);
  const Rows rows = make_rows(out);
  if (arithmetic == Arithmetic::bf16_rounded) {
    layer_norm_bf16<T><<<static_cast<unsigned>(total), kThreads, 0, stream>>>(norm, rows, groups);
  } else if (norm.cols <= 1024) {
    constexpr int64_t kTeams = kThreads / 32;
    norm_groups<T, true>
        <<<static_cast<unsigned>((total + kTeams - 1) / kTeams), kThreads, 0, stream>>>(norm, rows, groups, total);
  } else {
    norm_groups<T, false><<<static_cast<unsigned>(total), kThreads, 0, stream>>>(norm, rows, groups, total);
  }
  check_launch("a norm");
}

}  // namespace
}  // namespace cuda

void CudaBackend::norm(const Tensor& x, const NormArgs& args, Tensor& out) {
  assert(out.dtype() == x.dtype() && out.rows() == x.rows() && out.cols() == x.cols());
  const cuda::Norm norm = cuda::make_norm(x, args);
  const cuda::View result = cuda::view(out);
  if (cuda::in_registers(args, x.cols())) {
    cuda::Targets targets;
    targets.count = 1;
    targets.at[0] = cuda::plain_target(result, result.cols);
    x.dtype() == DType::bf16 ? cuda::run_norm_rows<BFloat16>(norm, x.rows(), targets, stream())
                             : cuda::run_norm_rows<float>(norm, x.rows(), targets, stream());
  } else {
    x.dtype() == DType::bf16 ? cuda::run_norm_groups<BFloat16>(norm, args.arithmetic, result, stream())
                             : cuda::run_norm_groups<float>(norm, args.arithmetic, result, stream());
  }
}

void CudaBackend::norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
                       std::span<Operand> outs) {
  if (!cuda::in_registers(args, x.cols())) {
    Tensor whole = empty(x.dtype(), x.rows(), x.cols());
    norm(x, args, whole);
    operands(whole, window_offsets, outs);
    return;
  }
  const cuda::Norm norm = cuda::make_norm(x, args);
  const cuda::OperandPlan plan = cuda::plan_operands(*this, x.dtype(), x.rows(), x.cols(), outs);
  const auto write = [&](const auto& targets) {
    x.dtype() == DType::bf16 ? cuda::run_norm_rows<BFloat16>(norm, x.rows(), targets, stream())
                             : cuda::run_norm_rows<float>(norm, x.rows(), targets, stream());
  };
  for (const cuda::Targets& targets : plan.launches) write(targets);
  for (const cuda::FoldTargets& targets : plan.folds) write(targets);
  cuda::finish_operands(*this, plan, window_offsets);
}

}  // namespace mxlm
