#pragma once

// Inputs that tools/goldens/make_attention_goldens.py makes too, and attention in float64, for the tests.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/attention.hpp"
#include "backend/cpu/gemm.hpp"
#include "tensor/tensor.hpp"
#include "test_device.hpp"

namespace mxlm::cpu {

inline std::vector<Isa> isas() { return test_isas(); }

inline Tensor make_tensor(DType type, int64_t rows, int64_t cols) {
  const auto bytes = static_cast<size_t>(rows * cols) * dtype_size(type);
  std::shared_ptr<void> memory(std::aligned_alloc(64, (bytes + 127) / 64 * 64), std::free);
  return {type, rows, cols, cols, std::move(memory)};
}

inline float value(const Tensor& t, int64_t r, int64_t c) {
  return t.dtype() == DType::bf16 ? to_float(t.row<BFloat16>(r)[c]) : t.row<float>(r)[c];
}

inline void set(Tensor& t, int64_t r, int64_t c, float x) {
  if (t.dtype() == DType::bf16) {
    t.row<BFloat16>(r)[c] = to_bfloat16(x);
  } else {
    t.row<float>(r)[c] = x;
  }
}

/// Multiples of 2^-12 of nearly normal distribution: x <- 1664525 x + 1013904223 mod 2^32, four times a value.
class Generator {
 public:
  explicit Generator(uint32_t seed) : state_(seed) {}
  float next() {
    int sum = -4 * 2048 + 2;
    for (int i = 0; i < 4; ++i) {
      state_ = state_ * 1664525U + 1013904223U;
      sum += static_cast<int>(state_ >> 20);
    }
    return static_cast<float>(sum) * (1.0F / 2365);  // standard deviation 1
  }

 private:
  uint32_t state_;
};

struct Problem {
  Tensor q, k, v;
  std::vector<int64_t> offsets;
  AttentionArgs args;
  std::vector<int32_t> keys = {};
};

/// q, then k, then v, row by row; q is multiplied by `spread`.
inline Problem make_problem(DType type, const std::vector<int64_t>& windows, int heads, int kv_heads, int head_dim,
                            uint32_t seed, float spread = 1) {
  Problem p;
  p.offsets = {0};
  for (const int64_t length : windows) p.offsets.push_back(p.offsets.back() + length);
  p.args.heads = heads;
  p.args.kv_heads = kv_heads;
  p.args.head_dim = head_dim;
  p.args.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  const int64_t rows = p.offsets.back();
  p.q = make_tensor(type, rows, static_cast<int64_t>(heads) * head_dim);
  p.k = make_tensor(type, rows, static_cast<int64_t>(kv_heads) * head_dim);
  p.v = make_tensor(type, rows, static_cast<int64_t>(kv_heads) * head_dim);
  Generator random(seed);
  for (Tensor* t : {&p.q, &p.k, &p.v}) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < t->cols(); ++c) set(*t, r, c, random.next() * (t == &p.q ? spread : 1.0F));
    }
  }
  return p;
}

/// Attention of a problem on the device under test, in host memory.
inline Tensor attend(const Problem& p, Isa isa, int threads = 2, Order order = Order::forward) {
  Tensor out = make_tensor(p.q.dtype(), p.q.rows(), static_cast<int64_t>(p.args.heads) * p.args.head_dim);
  if (!test_on_gpu()) {
    ThreadPool pool(threads);
    attention(isa, order, pool, p.q, p.k, p.v, p.offsets, p.keys, p.args, out);
    return out;
  }
  const auto backend = test_backend({.threads = threads, .isa = isa, .order = order});
  const auto upload = [&](const Tensor& t) {
    const HostMatrix source{t.dtype(), t.rows(), t.cols(), t.stride(), static_cast<const std::byte*>(t.data())};
    return backend->upload(source, t.dtype());
  };
  const Batch batch{
      .tokens = std::vector<int32_t>(static_cast<size_t>(p.q.rows())), .offsets = p.offsets, .keys = p.keys};
  Operand result{.type = {.spec = std::nullopt, .storage = p.q.dtype()}};
  backend->attention(upload(p.q), upload(p.k), upload(p.v), batch, p.args, {&result, 1});
  std::vector<float> values(static_cast<size_t>(out.rows() * out.cols()));
  backend->download(result.values, values);
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t c = 0; c < out.cols(); ++c) set(out, r, c, values[static_cast<size_t>(r * out.cols() + c)]);
  }
  return out;
}

/// Window w of a problem as a problem of its own.
inline Problem window_of(const Problem& from, size_t w) {
  Problem p;
  const int64_t rows = from.offsets[w + 1] - from.offsets[w];
  p.offsets = {0, rows};
  p.args = from.args;
  if (!from.keys.empty()) p.keys = {from.keys[w]};
  const auto cut = [&](const Tensor& t) {
    Tensor out = make_tensor(t.dtype(), rows, t.cols());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < t.cols(); ++c) set(out, r, c, value(t, from.offsets[w] + r, c));
    }
    return out;
  };
  p.q = cut(from.q);
  p.k = cut(from.k);
  p.v = cut(from.v);
  return p;
}

/// Attention in float64, and for each output sum_j p_j |v_j|: what its errors are measured against.
struct Reference {
  std::vector<double> out, magnitude;  // [rows, heads * head_dim]
};

/// True if query i of window w sees key j (both of the window).
inline bool sees(const Problem& p, size_t w, int64_t i, int64_t j) {
  return j <= i && (p.keys.empty() || j < p.keys[w]) && (p.args.sliding_window == 0 || j > i - p.args.sliding_window);
}

inline Reference attend_reference(const Problem& p) {
  const int64_t d = p.args.head_dim;
  const int64_t q_step = p.args.q_head_stride == 0 ? d : p.args.q_head_stride;
  const int64_t kv_step = p.args.kv_head_stride == 0 ? d : p.args.kv_head_stride;
  const int64_t width = p.args.heads * d;
  const auto size = static_cast<size_t>(p.q.rows() * width);
  Reference reference{std::vector<double>(size), std::vector<double>(size)};
  for (size_t w = 0; w + 1 < p.offsets.size(); ++w) {
    for (int64_t row = p.offsets[w]; row < p.offsets[w + 1]; ++row) {
      for (int h = 0; h < p.args.heads; ++h) {
        const auto head = static_cast<size_t>(h);
        const int64_t kv = h / (p.args.heads / p.args.kv_heads) * kv_step;
        std::vector<double> weights;
        std::vector<int64_t> keys;
        double maximum = p.args.sinks.empty() ? -INFINITY : static_cast<double>(p.args.sinks[head]);
        for (int64_t key = p.offsets[w]; key <= row; ++key) {
          if (!sees(p, w, row - p.offsets[w], key - p.offsets[w])) continue;
          double score = 0;
          for (int64_t c = 0; c < d; ++c) {
            score +=
                static_cast<double>(value(p.q, row, h * q_step + c)) * static_cast<double>(value(p.k, key, kv + c));
          }
          score *= static_cast<double>(p.args.scale);
          const auto cap = static_cast<double>(p.args.softcap);
          if (cap != 0) score = cap * std::tanh(score / cap);
          if (!p.args.slopes.empty()) {
            score += static_cast<double>(p.args.slopes[head]) * static_cast<double>(key - row);
          }
          weights.push_back(score);
          keys.push_back(key);
          maximum = std::max(maximum, score);
        }
        double sum = p.args.sinks.empty() ? 0 : std::exp(static_cast<double>(p.args.sinks[head]) - maximum);
        for (double& x : weights) {
          x = std::exp(x - maximum);
          sum += x;
        }
        for (int64_t c = 0; c < d; ++c) {
          const auto i = static_cast<size_t>(row * width + h * d + c);
          for (size_t n = 0; n < keys.size(); ++n) {
            const auto v = static_cast<double>(value(p.v, keys[n], kv + c));
            reference.out[i] += weights[n] / sum * v;
            reference.magnitude[i] += weights[n] / sum * std::abs(v);
          }
        }
      }
    }
  }
  return reference;
}

// The largest |error| / sum_j p_j |v_j| of any output, and the root of the mean of its square.
struct Deviation {
  double worst = 0, rms = 0;
};

inline Deviation deviation(const Reference& reference, const Tensor& out) {
  Deviation d;
  double total = 0;
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t c = 0; c < out.cols(); ++c) {
      const auto i = static_cast<size_t>(r * out.cols() + c);
      const double error = std::abs(value(out, r, c) - reference.out[i]) / (reference.magnitude[i] + 1e-30);
      d.worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(d.worst, error);
      total += error * error;
    }
  }
  d.rms = std::sqrt(total / static_cast<double>(out.rows() * out.cols()));
  return d;
}

}  // namespace mxlm::cpu
