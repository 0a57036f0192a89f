#include "backend/cpu/attention.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/attention_amx.hpp"
#include "backend/cpu/attention_quantized.hpp"
#include "backend/cpu/scratch.hpp"
#include "backend/cpu/softmax.hpp"
#include "backend/cpu/vector_math.hpp"

namespace mxlm::cpu {
namespace {

constexpr int64_t kQueryBlock = 32;  // rows of scores computed at a time
constexpr int64_t kKeyBlock = 128;   // keys that share one step of the online softmax
constexpr int64_t kTaskRows = 128;   // queries of one head that one task computes
static_assert(kKeyBlock % kQueryBlock == 0 && kTaskRows % kQueryBlock == 0);

/// `task_rows` queries of one head, from query `begin` of the window on.
struct Task {
  int64_t window, begin;
  int head;
};

void pack_keys(Isa isa, const BFloat16* rows, int64_t count, int64_t stride, int64_t k, BFloat16* panel) {
  pack_panel_bf16(isa, rows, count, stride, k, panel);
}
void pack_keys(Isa isa, const float* rows, int64_t count, int64_t stride, int64_t k, float* panel) {
  pack_panel_f32(isa, rows, count, stride, k, panel);
}
void pack_values(const BFloat16* v, int64_t keys, int64_t stride, int64_t d, BFloat16* panels) {
  pack_transposed_bf16(v, keys, stride, d, panels);
}
void pack_values(const float* v, int64_t keys, int64_t stride, int64_t d, float* panels) {
  pack_transposed_f32(v, keys, stride, d, panels);
}

/// One call of attention() in a model of element type T.
template <typename T>
class BlockedAttention {
 public:
  BlockedAttention(Isa isa, Order order, const Tensor& q, const Tensor& k, const Tensor& v,
                   std::span<const int64_t> offsets, std::span<const int32_t> keys, const AttentionArgs& args,
                   Tensor& out)
      : isa_(isa), order_(order), q_(q), k_(k), v_(v), offsets_(offsets), real_keys_(keys), args_(args), out_(out) {
    key_base_.push_back(0);
    for (int64_t w = 0; w < windows(); ++w) key_base_.push_back(key_base_.back() + round_up(length(w), kDepth));
  }

  void run(ThreadPool& pool) {
    const int64_t panel_keys = key_base_.back() * args_.kv_heads;
    const int64_t worker_bytes = tiles() ? static_cast<int64_t>(amx_scratch_bytes(depth()))
                                         : worker_elements() * static_cast<int64_t>(sizeof(float));
    const int64_t packed_bytes = panel_keys * (depth() + width()) * static_cast<int64_t>(sizeof(T));
    // The calling thread keeps the memory of all workers: it calls again for the next layer.
    static thread_local Scratch scratch;
    std::byte* memory = scratch.reserve(static_cast<size_t>(packed_bytes + worker_bytes * pool.threads()));
    keys_ = reinterpret_cast<T*>(memory);
    values_ = keys_ + panel_keys * depth();
    std::byte* workers = memory + packed_bytes;

    std::vector<Task> packing;
    std::vector<Task> tasks;
    const int group = args_.heads / args_.kv_heads;
    for (int64_t w = 0; w < windows(); ++w) {
      for (int kv = 0; kv < args_.kv_heads; ++kv) {
        for (int64_t begin = 0; begin < length(w); begin += key_block()) packing.push_back({w, begin, kv});
        // The last queries see the most keys: first, so that the threads end together.
        for (int64_t begin = round_up(length(w), kTaskRows) - kTaskRows; begin >= 0; begin -= kTaskRows) {
          for (int h = kv * group; h < (kv + 1) * group; ++h) tasks.push_back({w, begin, h});
        }
      }
    }
    pool.run(static_cast<int64_t>(packing.size()), [&](int64_t i, int) { pack(packing[static_cast<size_t>(i)]); });
    pool.run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int worker) {
      const Task& task = tasks[static_cast<size_t>(i)];
      const int64_t end = std::min(task.begin + kTaskRows, length(task.window));
      if (tiles()) return attend_tiles(task, end, workers + worker * worker_bytes);
      for (int64_t row = task.begin; row < end; row += kQueryBlock) {
        attend(task.window, task.head, row, std::min(row + kQueryBlock, end),
               reinterpret_cast<float*>(workers + worker * worker_bytes));
      }
    });
  }

 private:
  static constexpr DType kType = std::is_same_v<T, float> ? DType::f32 : DType::bf16;

  [[nodiscard]] int64_t windows() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  [[nodiscard]] int64_t first(int64_t w) const { return offsets_[static_cast<size_t>(w)]; }
  [[nodiscard]] int64_t length(int64_t w) const { return first(w + 1) - first(w); }
  /// Keys of a window that queries may see.
  [[nodiscard]] int64_t key_limit(int64_t w) const {
    return real_keys_.empty() ? length(w) : std::min<int64_t>(length(w), real_keys_[static_cast<size_t>(w)]);
  }
  [[nodiscard]] int64_t depth() const { return round_up(args_.head_dim, kDepth); }  // padded, as the sum of Q K^T
  [[nodiscard]] int64_t width() const {                                             // padded, as the width of P V
    return round_up(args_.head_dim, tiles() ? kDepth : kPanel);
  }
  [[nodiscard]] bool tiles() const { return std::is_same_v<T, BFloat16> && isa_ == Isa::amx_bf16; }
  [[nodiscard]] int64_t key_block() const { return tiles() ? kAmxKeys : kKeyBlock; }
  // Scores, P, running output, one block's output, padded queries, sums, maxima and factors.
  [[nodiscard]] int64_t worker_elements() const {
    return kQueryBlock * (2 * kKeyBlock + 2 * width() + depth() + kSumLanes + 2);
  }

  // Key/value head `kv` of window `w`: panels of 16 keys; and for each block of keys panels of 16 columns of V.
  [[nodiscard]] T* key_panels(int64_t w, int kv) const { return keys_ + packed_row(w, kv) * depth(); }
  [[nodiscard]] T* value_panels(int64_t w, int kv) const { return values_ + packed_row(w, kv) * width(); }
  [[nodiscard]] int64_t packed_row(int64_t w, int kv) const {
    return key_base_[static_cast<size_t>(w)] * args_.kv_heads + kv * round_up(length(w), kDepth);
  }

  void pack(const Task& task) const {
    const int64_t end = std::min(task.begin + key_block(), length(task.window));
    const int64_t column = task.head * kv_head_stride(args_);
    // The last panels may be of padding only.
    for (int64_t key = task.begin; key < round_up(end, kDepth); key += kPanel) {
      const int64_t count = std::clamp<int64_t>(end - key, 0, kPanel);
      pack_keys(isa_, k_.row<T>(first(task.window) + std::min(key, end - 1)) + column, count, k_.stride(),
                args_.head_dim, key_panels(task.window, task.head) + key * depth());
    }
    T* values = value_panels(task.window, task.head) + task.begin * width();
    pack_values(v_.row<T>(first(task.window) + task.begin) + column, end - task.begin, v_.stride(), args_.head_dim,
                values);
    const int64_t keys = round_up(end - task.begin, kDepth);
    std::fill(values + keys * round_up(args_.head_dim, kPanel), values + keys * width(), T{});
  }

  void attend_tiles(const Task& task, int64_t end, std::byte* memory) const {
    if constexpr (std::is_same_v<T, BFloat16>) {
      const int kv = task.head / (args_.heads / args_.kv_heads);
      attend_amx({.order = order_,
                  .head_dim = args_.head_dim,
                  .depth = depth(),
                  .log2_scale = args_.scale * kLog2e,
                  .begin = task.begin,
                  .end = end,
                  .padded_length = round_up(length(task.window), kDepth),
                  .key_limit = key_limit(task.window) < length(task.window) ? key_limit(task.window)
                                                                            : round_up(length(task.window), kDepth),
                  .window = args_.sliding_window,
                  .transform = score_transform(args_, task.head),
                  .log2_sink = log2_sink(args_, task.head),
                  .q = q_.row<T>(first(task.window)) + task.head * q_head_stride(args_),
                  .q_stride = q_.stride(),
                  .keys = key_panels(task.window, kv),
                  .values = value_panels(task.window, kv),
                  .out = out_.row<T>(first(task.window)) + static_cast<int64_t>(task.head) * args_.head_dim,
                  .out_stride = out_.stride()},
                 memory);
    }
  }

  // Queries [begin, end) of the window, at most kQueryBlock, `begin` a multiple of it.
  void attend(int64_t w, int head, int64_t begin, int64_t end, float* memory) const {
    const int64_t rows = end - begin;
    const int kv = head / (args_.heads / args_.kv_heads);
    float* scores = memory;
    T* p = reinterpret_cast<T*>(scores + kQueryBlock * kKeyBlock);
    float* output = scores + 2 * kQueryBlock * kKeyBlock;
    float* product = output + kQueryBlock * width();
    T* padded = reinterpret_cast<T*>(product + kQueryBlock * width());
    float* sums = product + kQueryBlock * (width() + depth());
    float* maximum = sums + kQueryBlock * kSumLanes;
    float* factors = maximum + kQueryBlock;

    // The product reads head_dim rounded up to 32 values of a query, which would be the next head's.
    const T* queries = q_.row<T>(first(w) + begin) + head * q_head_stride(args_);
    int64_t query_stride = q_.stride();
    if (depth() != args_.head_dim) {
      for (int64_t i = 0; i < rows; ++i) {
        std::copy_n(queries + i * query_stride, args_.head_dim, padded + i * depth());
        std::fill(padded + i * depth() + args_.head_dim, padded + (i + 1) * depth(), T{});
      }
      queries = padded;
      query_stride = depth();
    }
    std::fill_n(output, rows * width(), 0.0F);
    const float sink = log2_sink(args_, head);
    std::fill_n(sums, rows * kSumLanes, 0.0F);
    std::fill_n(maximum, rows, sink);
    if (sink != -std::numeric_limits<float>::infinity()) {
      for (int64_t i = 0; i < rows; ++i) sums[i * kSumLanes] = 1;
    }
    const ScoreTransform transform = score_transform(args_, head);
    const int64_t limit = key_limit(w);

    const int64_t first_block =
        args_.sliding_window == 0 ? 0 : std::max<int64_t>(begin - args_.sliding_window + 1, 0) / kKeyBlock;
    const int64_t end_block = (std::min(end, limit) + kKeyBlock - 1) / kKeyBlock;
    for (int64_t n = first_block; n < end_block; ++n) {
      const int64_t block = order_ == Order::forward ? n : first_block + end_block - 1 - n;
      const int64_t key = block * kKeyBlock;
      const int64_t block_keys = round_up(std::min(kKeyBlock, length(w) - key), kDepth);
      const int64_t seen = round_up(std::min(std::min(end, limit) - key, kKeyBlock), kPanel);
      const PackedPanels key_block{kType, block_keys, depth(), key_panels(w, kv) + key * depth()};
      gemm_tile(isa_, order_, rows, kType, queries, query_stride, key_block, 0, seen / kPanel, scores, kKeyBlock);
      if (transform.needed()) transform_scores(isa_, transform, begin, key, rows, seen, scores, kKeyBlock);
      softmax_block(isa_, kType,
                    {.rows = rows,
                     .keys = block_keys,
                     .visible = begin - key + 1,
                     .limit = limit - key,
                     .hidden = args_.sliding_window == 0 ? -kAllKeys : begin - key - args_.sliding_window + 1,
                     .log2_scale = transform.needed() ? 1.0F : args_.scale * kLog2e,
                     .scores = scores,
                     .score_stride = kKeyBlock,
                     .p = p,
                     .p_stride = kKeyBlock,
                     .maximum = maximum,
                     .sums = sums,
                     .factors = factors});
      const PackedPanels value_block{kType, width(), block_keys, value_panels(w, kv) + key * width()};
      gemm_tile(isa_, order_, rows, kType, p, kKeyBlock, value_block, 0, width() / kPanel, product, width());
      rescale_add(isa_, rows, width(), factors, product, output);
    }
    normalise_rows(isa_, rows, args_.head_dim, sums, output, width(), kType,
                   out_.row<T>(first(w) + begin) + static_cast<int64_t>(head) * args_.head_dim, out_.stride());
  }

  Isa isa_;
  Order order_;
  const Tensor& q_;
  const Tensor& k_;
  const Tensor& v_;
  std::span<const int64_t> offsets_;
  std::span<const int32_t> real_keys_;
  const AttentionArgs& args_;
  Tensor& out_;
  std::vector<int64_t> key_base_;  // where a window's keys start in a packed head, each padded to 32
  T* keys_ = nullptr;
  T* values_ = nullptr;
};

}  // namespace

ScoreTransform score_transform(const AttentionArgs& args, int head) {
  return {.scale = args.scale,
          .softcap = args.softcap,
          .slope = args.slopes.empty() ? 0 : args.slopes[static_cast<size_t>(head)]};
}

float log2_sink(const AttentionArgs& args, int head) {
  return args.sinks.empty() ? -std::numeric_limits<float>::infinity() : args.sinks[static_cast<size_t>(head)] * kLog2e;
}

void attention(Isa isa, Order order, ThreadPool& pool, const Tensor& q, const Tensor& k, const Tensor& v,
               std::span<const int64_t> offsets, std::span<const int32_t> keys, const AttentionArgs& args,
               Tensor& out) {
  assert(args.kv_heads > 0 && args.heads % args.kv_heads == 0);
  assert(args.head_dim > 0 && args.head_dim <= 256 && args.scale > 0 && args.sliding_window >= 0 && args.softcap >= 0);
  assert(q_head_stride(args) >= args.head_dim && kv_head_stride(args) >= args.head_dim);
  assert(q.cols() >= (args.heads - 1) * q_head_stride(args) + args.head_dim);
  assert(k.cols() >= (args.kv_heads - 1) * kv_head_stride(args) + args.head_dim);
  assert(v.cols() >= (args.kv_heads - 1) * kv_head_stride(args) + args.head_dim);
  assert(out.cols() == static_cast<int64_t>(args.heads) * args.head_dim);
  assert(args.slopes.empty() || static_cast<int>(args.slopes.size()) == args.heads);
  assert(args.sinks.empty() || static_cast<int>(args.sinks.size()) == args.heads);
  assert(q.dtype() == k.dtype() && q.dtype() == v.dtype() && q.dtype() == out.dtype());
  assert(!offsets.empty() && offsets.front() == 0 && offsets.back() <= q.rows());
  assert(keys.empty() || keys.size() + 1 == offsets.size());
  if (args.qk.replaced() || args.pv.replaced() || args.arithmetic == Arithmetic::bf16_rounded) {
    return attention_quantized(isa, order, pool, q, k, v, offsets, keys, args, out);
  }
  if (q.dtype() == DType::bf16) {
    BlockedAttention<BFloat16>(isa, order, q, k, v, offsets, keys, args, out).run(pool);
  } else {
    assert(q.dtype() == DType::f32);
    BlockedAttention<float>(isa, order, q, k, v, offsets, keys, args, out).run(pool);
  }
}

}  // namespace mxlm::cpu
