#include "backend/cpu/attention_quantized.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <type_traits>
#include <vector>

#include "backend/cpu/attention.hpp"
#include "backend/cpu/bf16_ops.hpp"
#include "backend/cpu/quantize.hpp"
#include "backend/cpu/scratch.hpp"
#include "backend/cpu/softmax.hpp"
#include "backend/cpu/vector_math.hpp"

namespace mxlm::cpu {
namespace {

constexpr int64_t kRows = 16;  // queries whose rows of scores are held at a time

template <typename T>
constexpr DType kTypeOf = std::is_same_v<T, float> ? DType::f32 : DType::bf16;

void pack_panel(Isa isa, const BFloat16* rows, int64_t count, int64_t stride, int64_t k, BFloat16* panel) {
  pack_panel_bf16(isa, rows, count, stride, k, panel);
}
void pack_panel(Isa isa, const float* rows, int64_t count, int64_t stride, int64_t k, float* panel) {
  pack_panel_f32(isa, rows, count, stride, k, panel);
}

template <typename To, typename From>
To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<To, float>) {
    return to_float(x);
  } else {
    return to_bfloat16(x);
  }
}

/// A row in the spec of its product, as the element type that the product reads.
template <typename From, typename To>
void make_operand(Isa isa, const OperandSpec& spec, const From* in, int64_t n, To* out) {
  if (spec) {
    quantize_decode_row(isa, *spec, in, n, out);
  } else {
    std::transform(in, in + n, out, convert<To, From>);
  }
}

/// True if both operands of a product are bfloat16 values.
bool fits_bf16(const ProductSpec& spec, DType model) {
  const auto fits = [&](const OperandSpec& side) {
    return side ? mx::decodes_exactly_to_bf16(*side) : model == DType::bf16;
  };
  return fits(spec.weights) && fits(spec.activations);
}

/// 16 keys, or 16 columns of V, of a key/value head to pack; or 16 queries of a head to compute.
struct Task {
  enum class Kind : uint8_t { keys, values, queries } kind;
  int64_t window, begin;
  int head;
};

/// One call in a model of element type T whose products read QK and PV elements.
template <typename T, typename QK, typename PV>
class QuantizedAttention {
 public:
  QuantizedAttention(Isa isa, Order order, const Tensor& q, const Tensor& k, const Tensor& v,
                     std::span<const int64_t> offsets, std::span<const int32_t> keys, const AttentionArgs& args,
                     Tensor& out)
      : isa_(isa), order_(order), q_(q), k_(k), v_(v), offsets_(offsets), real_keys_(keys), args_(args), out_(out) {
    key_base_.push_back(0);
    for (int64_t w = 0; w < windows(); ++w) {
      key_base_.push_back(key_base_.back() + padded_length(w));
      longest_ = std::max(longest_, padded_length(w));
    }
  }

  void run(ThreadPool& pool) {
    const int64_t panel_keys = key_base_.back() * args_.kv_heads;
    const int64_t key_bytes = round_up(panel_keys * depth() * static_cast<int64_t>(sizeof(QK)), 64);
    const int64_t value_bytes = round_up(panel_keys * width() * static_cast<int64_t>(sizeof(PV)), 64);
    // Scores, P before and after quantising, queries, one product, sums, maxima and factors, all counted as float32.
    const int64_t worker_elements = kRows * (3 * longest_ + depth() + width() + kSumLanes + 2);
    const int64_t worker_bytes = round_up(worker_elements * static_cast<int64_t>(sizeof(float)), 64);
    static thread_local Scratch scratch;
    std::byte* memory = scratch.reserve(static_cast<size_t>(key_bytes + value_bytes + worker_bytes * pool.threads()));
    keys_ = reinterpret_cast<QK*>(memory);
    values_ = reinterpret_cast<PV*>(memory + key_bytes);
    std::byte* workers = memory + key_bytes + value_bytes;

    std::vector<Task> packing;
    std::vector<Task> tasks;
    const int group = args_.heads / args_.kv_heads;
    for (int64_t w = 0; w < windows(); ++w) {
      for (int kv = 0; kv < args_.kv_heads; ++kv) {
        for (int64_t i = 0; i < length(w); i += kPanel) packing.push_back({Task::Kind::keys, w, i, kv});
        for (int64_t i = 0; i < width(); i += kPanel) packing.push_back({Task::Kind::values, w, i, kv});
        for (int64_t begin = round_up(length(w), kRows) - kRows; begin >= 0; begin -= kRows) {
          for (int h = kv * group; h < (kv + 1) * group; ++h) tasks.push_back({Task::Kind::queries, w, begin, h});
        }
      }
    }
    const auto body = [&](const Task& task, int worker) {
      auto* own = reinterpret_cast<float*>(workers + worker * worker_bytes);
      switch (task.kind) {
        case Task::Kind::keys:
          return pack_keys(task, reinterpret_cast<QK*>(own));
        case Task::Kind::values:
          return pack_values(task, own);
        case Task::Kind::queries:
          return attend(task, own);
      }
    };
    pool.run(static_cast<int64_t>(packing.size()),
             [&](int64_t i, int worker) { body(packing[static_cast<size_t>(i)], worker); });
    pool.run(static_cast<int64_t>(tasks.size()),
             [&](int64_t i, int worker) { body(tasks[static_cast<size_t>(i)], worker); });
  }

 private:
  [[nodiscard]] int64_t windows() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  [[nodiscard]] int64_t first(int64_t w) const { return offsets_[static_cast<size_t>(w)]; }
  [[nodiscard]] int64_t length(int64_t w) const { return first(w + 1) - first(w); }
  [[nodiscard]] int64_t key_limit(int64_t w) const {
    return real_keys_.empty() ? length(w) : std::min<int64_t>(length(w), real_keys_[static_cast<size_t>(w)]);
  }
  [[nodiscard]] int64_t padded_length(int64_t w) const { return round_up(length(w), kDepth); }
  [[nodiscard]] int64_t depth() const { return round_up(args_.head_dim, kDepth); }
  [[nodiscard]] int64_t width() const { return round_up(args_.head_dim, kPanel); }
  [[nodiscard]] int64_t packed_row(int64_t w, int kv) const {
    return key_base_[static_cast<size_t>(w)] * args_.kv_heads + kv * padded_length(w);
  }
  [[nodiscard]] QK* key_panels(int64_t w, int kv) const { return keys_ + packed_row(w, kv) * depth(); }
  [[nodiscard]] PV* value_panels(int64_t w, int kv) const { return values_ + packed_row(w, kv) * width(); }

  void pack_keys(const Task& task, QK* rows) const {
    const int64_t count = std::min(kPanel, length(task.window) - task.begin);
    const int64_t column = task.head * kv_head_stride(args_);
    for (int64_t i = 0; i < count; ++i) {
      make_operand(isa_, args_.qk.activations, k_.row<T>(first(task.window) + task.begin + i) + column, args_.head_dim,
                   rows + i * args_.head_dim);
    }
    pack_panel(isa_, rows, count, args_.head_dim, args_.head_dim,
               key_panels(task.window, task.head) + task.begin * depth());
  }

  // Columns of V lie along the keys, so the quantiser sees V transposed, and so does the product.
  void pack_values(const Task& task, float* memory) const {
    const int64_t keys = length(task.window);
    const int64_t count = std::min(kPanel, args_.head_dim - task.begin);
    const int64_t column = task.head * kv_head_stride(args_) + task.begin;
    T* transposed = reinterpret_cast<T*>(memory);
    PV* rows = reinterpret_cast<PV*>(memory + kRows * longest_);
    for (int64_t key = 0; key < keys; ++key) {
      const T* v = v_.row<T>(first(task.window) + key) + column;
      for (int64_t i = 0; i < count; ++i) transposed[i * keys + key] = v[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      make_operand(isa_, args_.pv.activations, transposed + i * keys, keys, rows + i * keys);
    }
    pack_panel(isa_, rows, count, keys, keys,
               value_panels(task.window, task.head) + task.begin * padded_length(task.window));
  }

  /// Scores of `rows` queries, keys [low, high), to the normalised P in the model dtype.
  void softmax(const Task& task, int64_t rows, int64_t low, int64_t high, int64_t limit, int64_t keys, float* scores,
               T* p, float* sums, float* maximum, float* factors) const {
    const ScoreTransform transform = score_transform(args_, task.head);
    if (transform.needed()) {
      transform_scores(isa_, transform, task.begin, low, rows, high - low, scores + low, keys);
    }

    const float sink = log2_sink(args_, task.head);
    std::fill_n(sums, rows * kSumLanes, 0.0F);
    std::fill_n(maximum, rows, sink);
    if (sink != -std::numeric_limits<float>::infinity()) {
      for (int64_t i = 0; i < rows; ++i) sums[i * kSumLanes] = 1;
    }
    softmax_block(isa_, DType::f32,
                  {.rows = rows,
                   .keys = keys,
                   .visible = task.begin + 1,
                   .limit = limit,
                   .hidden = args_.sliding_window == 0 ? -kAllKeys : task.begin - args_.sliding_window + 1,
                   .log2_scale = transform.needed() ? 1.0F : args_.scale * kLog2e,
                   .scores = scores,
                   .score_stride = keys,
                   .p = scores,  // in place: an element is read before it is written, and none after
                   .p_stride = keys,
                   .maximum = maximum,
                   .sums = sums,
                   .factors = factors});
    normalise_rows(isa_, rows, keys, sums, scores, keys, kTypeOf<T>, p, keys);
  }

  void attend(const Task& task, float* memory) const {
    const int64_t w = task.window;
    const int64_t end = std::min(task.begin + kRows, length(w));
    const int64_t rows = end - task.begin;
    const int64_t keys = padded_length(w);
    const int kv = task.head / (args_.heads / args_.kv_heads);
    const int64_t column = static_cast<int64_t>(task.head) * args_.head_dim;
    float* scores = memory;
    T* p = reinterpret_cast<T*>(scores + kRows * longest_);
    PV* quantized = reinterpret_cast<PV*>(scores + 2 * kRows * longest_);
    QK* queries = reinterpret_cast<QK*>(scores + 3 * kRows * longest_);
    float* product = scores + kRows * (3 * longest_ + depth());
    float* sums = product + kRows * width();
    float* maximum = sums + kRows * kSumLanes;
    float* factors = maximum + kRows;

    for (int64_t i = 0; i < rows; ++i) {
      QK* row = queries + i * depth();
      make_operand(isa_, args_.qk.weights, q_.row<T>(first(w) + task.begin + i) + task.head * q_head_stride(args_),
                   args_.head_dim, row);
      std::fill(row + args_.head_dim, row + depth(), QK{});
    }
    const int64_t limit = key_limit(w);
    const int64_t low =
        args_.sliding_window == 0 ? 0 : std::max<int64_t>(task.begin - args_.sliding_window + 1, 0) / kPanel * kPanel;
    const int64_t high = std::max(round_up(std::min(end, limit), kPanel), low);
    const PackedPanels all_keys{kTypeOf<QK>, keys, depth(), key_panels(w, kv)};
    gemm_tile(isa_, order_, rows, kTypeOf<QK>, queries, depth(), all_keys, low / kPanel, high / kPanel, scores + low,
              keys);
    if (args_.arithmetic == Arithmetic::bf16_rounded) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t query = task.begin + i;
        const int64_t seen = std::min(query + 1, limit);
        const int64_t from =
            args_.sliding_window == 0 ? 0 : std::min(std::max<int64_t>(query - args_.sliding_window + 1, 0), seen);
        float* row = scores + i * keys;
        attention_row_bf16(args_, task.head, from - query, seen - from, row + from);
        std::fill(row, row + from, 0.0F);
        std::transform(row, row + seen, p + i * keys, convert<T, float>);
      }
    } else {
      softmax(task, rows, low, high, limit, keys, scores, p, sums, maximum, factors);
    }
    for (int64_t i = 0; i < rows; ++i) {
      // What a row may not see is zero, which changes no block's scale.
      const int64_t visible = std::min(task.begin + i + 1, limit);
      PV* row = quantized + i * keys;
      make_operand(isa_, args_.pv.weights, p + i * keys, visible, row);
      std::fill(row + visible, row + keys, PV{});
    }
    const PackedPanels all_values{kTypeOf<PV>, width(), keys, value_panels(w, kv)};
    gemm_tile(isa_, order_, rows, kTypeOf<PV>, quantized, keys, all_values, 0, width() / kPanel, product, width());
    for (int64_t i = 0; i < rows; ++i) {
      const float* row = product + i * width();
      T* out = out_.row<T>(first(w) + task.begin + i) + column;
      std::transform(row, row + args_.head_dim, out, convert<T, float>);
      if (args_.arithmetic == Arithmetic::bf16_rounded) add_bias_row_bf16(nullptr, args_.head_dim, out);
    }
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
  int64_t longest_ = std::max(kDepth, kPanel);
  QK* keys_ = nullptr;
  PV* values_ = nullptr;
};

}  // namespace

void attention_quantized(Isa isa, Order order, ThreadPool& pool, const Tensor& q, const Tensor& k, const Tensor& v,
                         std::span<const int64_t> offsets, std::span<const int32_t> keys, const AttentionArgs& args,
                         Tensor& out) {
  const auto with_types = [&]<typename T, typename QK, typename PV>(T, QK, PV) {
    QuantizedAttention<T, QK, PV>(isa, order, q, k, v, offsets, keys, args, out).run(pool);
  };
  const auto with_model = [&]<typename T>(T model) {
    const bool qk = fits_bf16(args.qk, kTypeOf<T>);
    const bool pv = fits_bf16(args.pv, kTypeOf<T>);
    if (qk && pv) return with_types(model, BFloat16{}, BFloat16{});
    if (qk) return with_types(model, BFloat16{}, 0.0F);
    if (pv) return with_types(model, 0.0F, BFloat16{});
    with_types(model, 0.0F, 0.0F);
  };
  q.dtype() == DType::bf16 ? with_model(BFloat16{}) : with_model(0.0F);
}

}  // namespace mxlm::cpu
