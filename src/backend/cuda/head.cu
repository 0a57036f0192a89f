// The LM head: chunks of the vocabulary x tiles of tokens whose logits stay in the second-level cache, as does the
// chunk's part of the weight, which is read from memory once; the baseline's chunk is kept while every variant's is
// computed and taken in. Chunks come in ascending order with the same bounds for every token, so a token's figures
// depend on its logits alone. The sums are those of backend/cpu/head_rows.hpp: float32 terms, a few
// of them summed in float32, the rest in double.

#include <algorithm>
#include <cassert>
#include <vector>

#include "backend/cuda/cuda_backend.hpp"

namespace mxlm {
namespace {

using cuda::View;
using cuda::Weight;

constexpr int kThreads = 256;
constexpr int kVectors = 4;                          // of 4 logits, a thread
constexpr int64_t kChunk = kThreads * kVectors * 4;  // logits
constexpr int64_t kTileRows = 2048;
constexpr float kLowest = -3.402823466e38F;

struct TokenState {
  double sum, cross, reverse, moment, rescale, jensen_shannon;
  float max, target;
  int top1;
  bool started, finite;
};

/// How a chunk's products become logits.
struct Transform {
  const float* bias;  // of the chunk's first logit, or null
  float multiplier, softcap;
  Arithmetic arithmetic;
  cuda::Powers powers;  // of the products first of all; from the tile's first row and the chunk's first logit on
  float row_power;
};

__device__ Transform of_row(Transform t, int64_t row) {
  if (t.powers.rows != nullptr) t.row_power = t.powers.rows[row];
  return t;
}

__device__ float powered(const Transform& t, float sum, int64_t place) {
  return t.powers.columns == nullptr ? sum : cuda::times_powers(sum, t.row_power, t.powers.columns[place]);
}

__device__ float round_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return x;
  return __uint_as_float((bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U);
}

__device__ float logit_of(const Transform& t, float product, int64_t place) {
  if (t.arithmetic == Arithmetic::bf16_rounded) {
    float x = round_bf16(product);
    if (t.bias != nullptr) x = round_bf16(x + round_bf16(t.bias[place]));
    x *= t.multiplier;
    return t.softcap == 0 ? x : t.softcap * round_bf16(tanhf(round_bf16(x / t.softcap)));
  }
  float x = t.bias == nullptr ? product : product + t.bias[place];
  if (t.softcap != 0) return t.softcap * tanhf(x * (t.multiplier / t.softcap));
  return t.multiplier == 1 ? x : x * t.multiplier;
}

/// A warp's part of a row's chunk: sums relative to its own largest logits.
struct Part {
  double sum, cross, reverse, moment;
  float max, baseline_max, min;
};

/// 2^(c (x - max)) = e^(x - max), c = log2(e) in float32.
__device__ float power_of(float x, float max) { return exp2f((x - max) * 1.44269504F); }

template <typename T>
__device__ T warp_sum(T mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) mine += __shfl_xor_sync(0xffffffffU, mine, step);
  return mine;
}
__device__ float warp_max(float mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) mine = fmaxf(mine, __shfl_xor_sync(0xffffffffU, mine, step));
  return mine;
}
__device__ float warp_min(float mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) mine = fminf(mine, __shfl_xor_sync(0xffffffffU, mine, step));
  return mine;
}

/// The thread's logits of a chunk, the lowest float where there are none: their terms are zero.
template <bool kPlain>
__device__ void load_logits(const float* in, const Transform& transform, int64_t count, float (&x)[kVectors * 4]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = (int64_t{v} * kThreads + threadIdx.x) * 4;
    if (at + 4 <= count) {
      const float4 four = *reinterpret_cast<const float4*>(in + at);
      x[4 * v] = four.x;
      x[4 * v + 1] = four.y;
      x[4 * v + 2] = four.z;
      x[4 * v + 3] = four.w;
      if (transform.powers.columns != nullptr) {
        const float4 powers = *reinterpret_cast<const float4*>(transform.powers.columns + at);
        x[4 * v] = cuda::times_powers(x[4 * v], transform.row_power, powers.x);
        x[4 * v + 1] = cuda::times_powers(x[4 * v + 1], transform.row_power, powers.y);
        x[4 * v + 2] = cuda::times_powers(x[4 * v + 2], transform.row_power, powers.z);
        x[4 * v + 3] = cuda::times_powers(x[4 * v + 3], transform.row_power, powers.w);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) x[4 * v + i] = at + i < count ? powered(transform, in[at + i], at + i) : kLowest;
    }
    if (!kPlain) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (at + i < count) x[4 * v + i] = logit_of(transform, x[4 * v + i], at + i);
      }
    }
  }
}

/// Takes a chunk of `count` logits of each row into its state, a block a row. For a variant, `baseline` has the
/// products of the same chunk and `baseline_states` the baseline's states, which have taken it in already. `kPlain`:
/// products are logits but for their powers, of both.
template <bool kVariant, bool kSelf, bool kPlain>
__global__ void __launch_bounds__(kThreads, 4)
    chunk_kernel(const float* products, int64_t stride, Transform transform, const float* baseline,
                 Transform baseline_transform, int64_t first, int64_t count, const int32_t* targets,
                 const TokenState* baseline_states, TokenState* states) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kWarps <= 32);
  __shared__ Part parts[kWarps];
  __shared__ int place;
  const int64_t row = blockIdx.x;
  const float* in = products + row * stride;
  transform = of_row(transform, row);
  if (kVariant) baseline_transform = of_row(baseline_transform, row);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);

  float x[kVectors * 4];
  load_logits<kPlain>(in, transform, count, x);
  Part mine{};
  mine.max = kLowest;  // (NaNs are passed over: they show in the sum.)
  mine.min = INFINITY;
#pragma unroll
  for (float value : x) {
    mine.max = fmaxf(mine.max, value);
    mine.min = fminf(mine.min, value);
  }
  mine.max = warp_max(mine.max);
  mine.min = warp_min(mine.min);
  float sum[4] = {}, moment[4] = {};
  if constexpr (kVariant) {
    float reference[kVectors * 4];
    load_logits<kPlain>(baseline + row * stride, baseline_transform, count, reference);
    mine.baseline_max = kLowest;
#pragma unroll
    for (float value : reference) mine.baseline_max = fmaxf(mine.baseline_max, value);
    mine.baseline_max = warp_max(mine.baseline_max);
    float cross[4] = {}, reverse[4] = {};
#pragma unroll
    for (int i = 0; i < kVectors * 4; ++i) {
      const float ahead = reference[i] - x[i], power = power_of(x[i], mine.max);
      cross[i % 4] = fmaf(power_of(reference[i], mine.baseline_max), ahead, cross[i % 4]);
      reverse[i % 4] = fmaf(-power, ahead, reverse[i % 4]);
      sum[i % 4] += power;
      if (kSelf) moment[i % 4] = fmaf(power, x[i] - mine.max, moment[i % 4]);
    }
    mine.cross = warp_sum(static_cast<double>(cross[0]) + cross[1] + cross[2] + cross[3]);
    mine.reverse = warp_sum(static_cast<double>(reverse[0]) + reverse[1] + reverse[2] + reverse[3]);
  } else {
#pragma unroll
    for (int i = 0; i < kVectors * 4; ++i) {
      const float power = power_of(x[i], mine.max);
      sum[i % 4] += power;
      if (kSelf) moment[i % 4] = fmaf(power, x[i] - mine.max, moment[i % 4]);
    }
  }
  mine.sum = warp_sum(static_cast<double>(sum[0]) + sum[1] + sum[2] + sum[3]);
  if (kSelf) mine.moment = warp_sum(static_cast<double>(moment[0]) + moment[1] + moment[2] + moment[3]);
  if (lane == 0) parts[warp] = mine;
  if (threadIdx.x == 0) place = 0x7fffffff;
  __syncthreads();

  // Every warp looks for the row's largest logit; where it is a new one, its lowest place counts.
  const Part part = lane < kWarps ? parts[lane] : Part{0, 0, 0, 0, kLowest, kLowest, INFINITY};
  const float chunk_max = warp_max(part.max);
  const TokenState state = states[row];
  const bool raised = !state.started || chunk_max > state.max;
  if (raised) {
    if (mine.max == chunk_max) {
      int lowest = 0x7fffffff;
#pragma unroll
      for (int v = kVectors - 1; v >= 0; --v) {
#pragma unroll
        for (int i = 3; i >= 0; --i) {
          const int at = (v * kThreads + static_cast<int>(threadIdx.x)) * 4 + i;
          if (x[4 * v + i] == chunk_max && at < count) lowest = at;
        }
      }
      if (lowest != 0x7fffffff) atomicMin(&place, lowest);
    }
    __syncthreads();
  }
  if (warp != 0) return;
  const float max = raised ? chunk_max : state.max;
  const auto factor = [](float from, float to) { return exp(static_cast<double>(from) - static_cast<double>(to)); };
  const double own = lane < kWarps ? factor(part.max, max) : 0;
  const double chunk_sum = warp_sum(own * part.sum);
  double chunk_moment = 0, chunk_cross = 0, chunk_reverse = 0;
  if (kSelf) {
    const double shift = static_cast<double>(part.max) - static_cast<double>(max);
    chunk_moment = warp_sum(lane < kWarps ? own * (part.moment + shift * part.sum) : 0.0);
  }
  if (kVariant) {
    const double weight = lane < kWarps ? factor(part.baseline_max, baseline_states[row].max) : 0;
    chunk_cross = warp_sum(weight * part.cross);
    chunk_reverse = warp_sum(own * part.reverse);
  }
  const bool infinite = warp_min(part.min) == -INFINITY;
  if (lane != 0) return;
  const double rescale = !state.started ? 0 : raised ? factor(state.max, max) : 1;
  TokenState& out = states[row];
  if (kSelf) {
    const double change = state.started ? static_cast<double>(state.max) - static_cast<double>(max) : 0;
    out.moment = rescale * (state.moment + change * state.sum) + chunk_moment;
  }
  out.sum = rescale * state.sum + chunk_sum;
  if (kVariant) {
    out.cross = baseline_states[row].rescale * state.cross + chunk_cross;
    out.reverse = rescale * state.reverse + chunk_reverse;
  }
  out.rescale = rescale;
  out.max = max;
  // (No place: all are NaN, or none is above the lowest float.)
  if (raised) out.top1 = static_cast<int>(first) + (place == 0x7fffffff ? 0 : place);
  out.started = true;
  out.finite = state.finite && !infinite;
  const int64_t target = targets[row] - first;
  if (target >= 0 && target < count) {
    const float product = powered(transform, in[target], target);
    out.target = kPlain ? product : logit_of(transform, product, target);
  }
}

__global__ void start_kernel(TokenState* states, int64_t n) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i < n) states[i] = {0, 0, 0, 0, 1, 0, kLowest, 0, 0, false, true};
}

/// The second pass: adds a chunk's part of the Jensen-Shannon divergence to the variant's states, a block a row. The
/// formula is that of add_jensen_shannon_chunk in backend/cpu/head_rows.hpp.
__global__ void __launch_bounds__(kThreads)
    jensen_shannon_kernel(const float* products, int64_t stride, Transform transform, const float* baseline,
                          Transform baseline_transform, int64_t count, const TokenState* baseline_states,
                          TokenState* states) {
  constexpr int kWarps = kThreads / 32;
  __shared__ double parts[kWarps];
  const int64_t row = blockIdx.x;
  float q[kVectors * 4], p[kVectors * 4];
  load_logits<false>(products + row * stride, of_row(transform, row), count, q);
  load_logits<false>(baseline + row * stride, of_row(baseline_transform, row), count, p);
  const TokenState &b = baseline_states[row], &v = states[row];
  const auto b_log_sum = static_cast<float>(log(b.sum)), v_log_sum = static_cast<float>(log(v.sum));
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kVectors * 4; ++i) {
    const float log_p = (p[i] - b.max) - b_log_sum, log_q = (q[i] - v.max) - v_log_sum;
    const float d = fabsf(log_q - log_p), z = power_of(-d, 0);
    const float far = -(1 + z) * log1pf((z - 1) / 2) - z * d;
    const float x2 = d * d / 4, near = sqrtf(z) * x2 * (1 + x2 * x2 / 72);
    sum += power_of(fminf(fmaxf(log_p, log_q), 0), 0) * (d < 0.25F ? near : far);
  }
  const double whole = warp_sum(static_cast<double>(sum));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = whole;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double all = 0;
  for (const double part : parts) all += part;
  states[row].jensen_shannon += all / 2;
}

template <bool kSelf>
__global__ void finish_kernel(const TokenState* states, const TokenState* baseline, TokenScore* scores,
                              bool jensen_shannon, int64_t n) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= n) return;
  const TokenState& state = states[i];
  const double log_sum = log(state.sum);
  const double max = state.max;
  TokenScore score;
  score.nll = (max - static_cast<double>(kSelf ? state.max : state.target)) + log_sum;
  if (kSelf) score.entropy = static_cast<float>(log_sum - state.moment / state.sum);
  score.p = static_cast<float>(exp(-score.nll));
  score.top1 = state.top1;
  score.finite = state.finite && isfinite(max) && isfinite(log_sum);
  if (states != baseline) {
    const double shift = max - static_cast<double>(baseline[i].max), log_ratio = log_sum - log(baseline[i].sum);
    score.kld = state.cross / baseline[i].sum + shift + log_ratio;
    score.kld_reverse = static_cast<float>(state.reverse / state.sum - shift - log_ratio);
  }
  if (jensen_shannon) score.jensen_shannon = static_cast<float>(state.jensen_shannon);
  scores[i] = score;
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

const Weight& weight_of(const HeadJob& input) { return dynamic_cast<const Weight&>(*input.weight); }

Transform transform_of(const HeadJob& input, const cuda::Factor& values, int64_t first_row, int64_t first) {
  cuda::Powers powers;
  if (values.powers != nullptr) powers = {values.powers + first_row, weight_of(input).powers.get() + first};
  return {.bias = input.bias == nullptr ? nullptr : input.bias->row<float>(0) + first,
          .multiplier = input.logit_multiplier,
          .softcap = input.logit_softcap,
          .arithmetic = input.arithmetic,
          .powers = powers,
          .row_power = 1};
}

/// True if a product of the head, with its powers, is the logit.
bool is_plain(const HeadJob& input) {
  return input.bias == nullptr && input.logit_multiplier == 1 && input.logit_softcap == 0 &&
         input.arithmetic != Arithmetic::bf16_rounded;
}

/// An input with its operand as products read it.
struct Side {
  const HeadJob* input;
  cuda::Factor values, outliers;
};

__global__ void logits_kernel(float* products, int64_t stride, Transform transform, int64_t cols) {
  const int64_t row = blockIdx.x;
  transform = of_row(transform, row);
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    products[row * stride + c] = logit_of(transform, powered(transform, products[row * stride + c], c), c);
  }
}

}  // namespace

void CudaBackend::head_products(const cuda::Factor& values, const cuda::Factor& outliers, const HeadJob& input,
                                int64_t first_row, int64_t first, const View& out) {
  // (The powers of halves are left to the kernels that make logits of the products.)
  const Weight& weight = layout_for(input.hidden->type.storage, weight_of(input));
  // The end of the vocabulary is rarely a multiple of what the library is fast with; `out` has room.
  View whole = out;
  if (weight.layout != cuda::Layout::folded) {
    whole.cols = std::min((out.cols + cuda::kRowSlack - 1) / cuda::kRowSlack * cuda::kRowSlack, out.stride);
  }
  products_.multiply(values, first_row, weight, first, nullptr, whole);
  recompute(*input.hidden, weight, first_row, first, out);
  finish_sums(*input.hidden, outliers, weight, first_row, first, /*powers=*/{}, nullptr, out, out);
}

void CudaBackend::score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) {
  assert(!inputs.empty());
  const auto rows = static_cast<int64_t>(targets.size());
  const int64_t vocabulary = inputs[0].weight->rows();
  cuda::check_targets(targets, vocabulary);
  if (rows == 0) return;
  const bool self = inputs[0].kind == ScoreKind::self;
  std::vector<Side> sides;
  for (const HeadJob& input : inputs) {
    assert(input.hidden->values.rows() == rows && static_cast<int64_t>(input.scores.size()) == rows);
    Side side{.input = &input, .values = factor_of(*input.hidden, weight_of(input)), .outliers = {}};
    if (!input.hidden->outliers.empty()) side.outliers = products_.factor(input.hidden->outliers);
    sides.push_back(std::move(side));
  }
  const auto n = static_cast<int64_t>(inputs.size());
  const auto device_targets = to_device(targets);
  const auto state_memory = scratch(static_cast<size_t>(n * rows) * sizeof(TokenState));
  auto* states = static_cast<TokenState*>(state_memory.get());
  start_kernel<<<blocks_for(n * rows), kThreads, 0, stream()>>>(states, n * rows);

  const int64_t tile_rows = std::min(rows, kTileRows);
  const auto tile_bytes = static_cast<size_t>(tile_rows * kChunk) * sizeof(float);
  const auto baseline_memory = scratch(tile_bytes), variant_memory = scratch(tile_bytes);
  // Where time goes is seen in the first chunk.
  std::vector<Mark> marks{mark()};
  const Mark start = marks[0];
  // Calls `use`(input, first row, rows, first logit, logits, products) for every chunk of the vocabulary, tile of rows
  // and input; the baseline's products of the chunk stay in baseline_memory meanwhile.
  const auto each_chunk = [&](const auto& use) {
    for (int64_t first = 0; first < vocabulary; first += kChunk) {
      const int64_t width = std::min(kChunk, vocabulary - first);
      for (int64_t row = 0; row < rows; row += tile_rows) {
        const int64_t count = std::min(tile_rows, rows - row);
        for (int64_t i = 0; i < n; ++i) {
          const Side& side = sides[static_cast<size_t>(i)];
          const View out{.data = i == 0 ? baseline_memory.get() : variant_memory.get(),
                         .type = DType::f32,
                         .rows = count,
                         .cols = width,
                         .stride = kChunk};
          head_products(side.values, side.outliers, *side.input, row, first, out);
          use(i, row, count, first, width, out.as<float>());
          cuda::check_launch("scoring tokens");
        }
      }
    }
  };
  const auto* baseline = static_cast<const float*>(baseline_memory.get());
  const auto transform = [&](int64_t i, int64_t row, int64_t first) {
    return transform_of(inputs[static_cast<size_t>(i)], sides[static_cast<size_t>(i)].values, row, first);
  };
  each_chunk([&](int64_t i, int64_t row, int64_t count, int64_t first, int64_t width, const float* products) {
    const auto launch = [&](auto kernel) {
      kernel<<<static_cast<unsigned>(count), kThreads, 0, stream()>>>(
          products, kChunk, transform(i, row, first), baseline, transform(0, row, first), first, width,
          device_targets.get() + row, states + row, states + i * rows + row);
    };
    const bool plain = is_plain(inputs[static_cast<size_t>(i)]) && is_plain(inputs[0]);
    if (self) {
      i == 0 ? launch(chunk_kernel<false, true, false>) : launch(chunk_kernel<true, true, false>);
    } else if (plain) {
      i == 0 ? launch(chunk_kernel<false, false, true>) : launch(chunk_kernel<true, false, true>);
    } else {
      i == 0 ? launch(chunk_kernel<false, false, false>) : launch(chunk_kernel<true, false, false>);
    }
    if (first == 0) marks.push_back(mark());
  });
  const bool jensen_shannon = inputs[0].jensen_shannon;
  if (jensen_shannon) {
    each_chunk([&](int64_t i, int64_t row, int64_t count, int64_t first, int64_t width, const float* products) {
      if (i == 0) return;
      jensen_shannon_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream()>>>(
          products, kChunk, transform(i, row, first), baseline, transform(0, row, first), width, states + row,
          states + i * rows + row);
    });
  }
  const auto score_memory = scratch(static_cast<size_t>(n * rows) * sizeof(TokenScore));
  auto* scores = static_cast<TokenScore*>(score_memory.get());
  for (int64_t i = 0; i < n; ++i) {
    const auto kernel = self ? finish_kernel<true> : finish_kernel<false>;
    kernel<<<blocks_for(rows), kThreads, 0, stream()>>>(states + i * rows, states, scores + i * rows, jensen_shannon,
                                                        rows);
  }
  cuda::check_launch("scoring tokens");
  const Mark end = mark();
  for (int64_t i = 0; i < n; ++i) {
    to_host(inputs[static_cast<size_t>(i)].scores.data(), scores + i * rows,
            static_cast<size_t>(rows) * sizeof(TokenScore));
  }
  std::vector<double> shares(inputs.size(), 0);
  double all = 0;
  for (size_t m = 1; m < marks.size(); ++m) {
    const double took = seconds(marks[m - 1], marks[m]);
    shares[(m - 1) % inputs.size()] += took;
    all += took;
  }
  const double whole = seconds(start, end);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].seconds != nullptr && all > 0) *inputs[i].seconds += whole * shares[i] / all;
  }
}

void CudaBackend::logits(const HeadJob& input, std::span<float> out) {
  const Tensor& values = input.hidden->values;
  const int64_t vocabulary = input.weight->rows();
  assert(static_cast<int64_t>(out.size()) == values.rows() * vocabulary);
  if (values.rows() == 0) return;
  const cuda::Factor factor = factor_of(*input.hidden, weight_of(input));
  const cuda::Factor outliers =
      input.hidden->outliers.empty() ? cuda::Factor{} : products_.factor(input.hidden->outliers);
  const int64_t tile_rows = std::min(values.rows(), kTileRows);
  const int64_t stride = cuda::padded(vocabulary);
  const auto memory = scratch(static_cast<size_t>(tile_rows * stride) * sizeof(float));
  std::vector<float> packed(static_cast<size_t>(tile_rows * stride));
  for (int64_t row = 0; row < values.rows(); row += tile_rows) {
    const int64_t count = std::min(tile_rows, values.rows() - row);
    // The same chunks as for scores, so that they are the same logits.
    for (int64_t first = 0; first < vocabulary; first += kChunk) {
      const int64_t width = std::min(kChunk, vocabulary - first);
      const View chunk{.data = static_cast<float*>(memory.get()) + first,
                       .type = DType::f32,
                       .rows = count,
                       .cols = width,
                       .stride = stride};
      head_products(factor, outliers, input, row, first, chunk);
      logits_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream()>>>(
          chunk.as<float>(), stride, transform_of(input, factor, row, first), width);
    }
    cuda::check_launch("computing logits");
    to_host(packed.data(), memory.get(), static_cast<size_t>(count * stride) * sizeof(float));
    for (int64_t r = 0; r < count; ++r) {
      std::copy_n(packed.data() + r * stride, vocabulary, out.data() + (row + r) * vocabulary);
    }
  }
}

}  // namespace mxlm
