// The operations of the CPU backend that work row by row, and those that end in operands.

#include <algorithm>
#include <cassert>
#include <cstring>

#include "backend/cpu/attention.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/quantize.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/cpu/scratch.hpp"
#include "base/error.hpp"

namespace mxlm {
namespace {

using cpu::Isa;

constexpr int64_t kBytesPerTask = int64_t{128} << 10;

template <typename T>
constexpr DType kType = sizeof(T) == 2 ? DType::bf16 : DType::f32;

void zero_padding(Tensor& tensor, int64_t row) {
  const auto size = static_cast<int64_t>(dtype_size(tensor.dtype()));
  auto* data = static_cast<std::byte*>(tensor.data());
  std::memset(data + (row * tensor.stride() + tensor.cols()) * size, 0,
              static_cast<size_t>((tensor.stride() - tensor.cols()) * size));
}

/// True if the operand's values are the activation's own.
template <typename T>
bool is_plain(const OperandType& type) {
  return !type.spec && type.storage == kType<T>;
}

/// Fills one row of an operand from the activation's row, n values in the dtype of the model. `row` may be the
/// operand's own if that is plain.
template <typename T>
void fill_row(Isa isa, const T* row, int64_t n, Operand& out, int64_t r) {
  const bool bf16 = out.type.storage == DType::bf16;
  assert(out.type.spec || bf16 == (kType<T> == DType::bf16) || !bf16);
  if (out.type.spec) {
    if (bf16) {
      cpu::quantize_decode_row(isa, *out.type.spec, row, n, out.values.row<BFloat16>(r));
    } else {
      cpu::quantize_decode_row(isa, *out.type.spec, row, n, out.values.row<float>(r));
    }
  } else {
    void* target = bf16 ? static_cast<void*>(out.values.row<BFloat16>(r)) : out.values.row<float>(r);
    if (target != row) cpu::convert_row(isa, kType<T>, row, out.type.storage, target, n);
  }
  zero_padding(out.values, r);
}

template <typename T>
T* row_scratch(int64_t n) {
  thread_local cpu::Scratch scratch;
  return reinterpret_cast<T*>(scratch.reserve(static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T)));
}

/// Calls f with a null pointer of the type that a model of this dtype computes in.
template <typename F>
void with_type(DType type, const F& f) {
  assert(type == DType::f32 || type == DType::bf16);
  if (type == DType::bf16) {
    f(static_cast<BFloat16*>(nullptr));
  } else {
    f(static_cast<float*>(nullptr));
  }
}

}  // namespace

void CpuBackend::for_rows(int64_t rows, int64_t row_bytes, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t per_task = std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(row_bytes, 1));
  const std::lock_guard lock(turn_);
  pool_.run((rows + per_task - 1) / per_task,
            [&](int64_t task, int /*worker*/) { body(task * per_task, std::min((task + 1) * per_task, rows)); });
}

template <typename T, typename Produce>
void CpuBackend::make_operands(int64_t rows, int64_t cols, std::span<Operand> outs, const Produce& produce) {
  int64_t row_bytes = 4 * cols * static_cast<int64_t>(sizeof(T));
  for (Operand& out : outs) {
    out.values = empty(out.type.storage, rows, cols);
    row_bytes += cols * static_cast<int64_t>(dtype_size(out.type.storage));
  }
  // The row is computed in the first operand that wants it as it is, so that the usual case copies nothing.
  const auto plain = std::find_if(outs.begin(), outs.end(), [](const Operand& o) { return is_plain<T>(o.type); });
  for_rows(rows, row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* row = plain == outs.end() ? row_scratch<T>(cols) : plain->values.template row<T>(r);
      produce(r, row);
      for (Operand& out : outs) fill_row<T>(isa_, row, cols, out, r);
    }
  });
}

void CpuBackend::embed(const Batch& batch, const HostMatrix& table, Tensor& hidden) {
  assert(hidden.rows() == batch.rows() && hidden.cols() == table.cols);
  for (const int32_t token : batch.tokens) {
    if (token < 0 || token >= table.rows) {
      fail("Token id {} is outside the model's vocabulary of {}; use the tokenizer that belongs to the model.", token,
           table.rows);
    }
  }
  const auto size = static_cast<int64_t>(dtype_size(hidden.dtype()));
  const auto table_size = static_cast<int64_t>(dtype_size(table.type));
  auto* to = static_cast<std::byte*>(hidden.data());
  for_rows(hidden.rows(), hidden.cols() * (size + table_size), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t token = batch.tokens[static_cast<size_t>(r)];
      cpu::convert_row(isa_, table.type, table.data + token * table.stride * table_size, hidden.dtype(),
                       to + r * hidden.stride() * size, table.cols);
    }
  });
}

void CpuBackend::norm(const Tensor& x, const NormArgs& args, std::span<Operand> outs) {
  assert(args.weight != nullptr && args.weight->dtype() == x.dtype() && args.weight->cols() == x.cols());
  with_type(x.dtype(), [&]<typename T>(T*) {
    const T* weight = args.weight->row<T>(0);
    make_operands<T>(x.rows(), x.cols(), outs,
                     [&](int64_t r, T* y) { cpu::norm_row(isa_, x.row<T>(r), weight, args.epsilon, x.cols(), y); });
  });
}

void CpuBackend::gated_activation(const Tensor& gate, const Tensor& up, Activation activation,
                                  std::span<Operand> outs) {
  assert(gate.dtype() == up.dtype() && gate.rows() == up.rows() && gate.cols() == up.cols());
  with_type(gate.dtype(), [&]<typename T>(T*) {
    make_operands<T>(gate.rows(), gate.cols(), outs, [&](int64_t r, T* y) {
      cpu::gated_row(isa_, activation, gate.row<T>(r), up.row<T>(r), gate.cols(), y);
    });
  });
}

void CpuBackend::rotate(Tensor& x, int heads, int head_dim, const Rotary& rotary) {
  assert(x.cols() == static_cast<int64_t>(heads) * head_dim);
  assert(rotary.cos->dtype() == x.dtype() && rotary.sin->dtype() == x.dtype());
  assert(static_cast<int64_t>(rotary.rows.size()) == x.rows() && 2 * rotary.cos->cols() <= head_dim);
  const int half = static_cast<int>(rotary.cos->cols());
  with_type(x.dtype(), [&]<typename T>(T*) {
    for_rows(x.rows(), 2 * x.cols() * static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int32_t position = rotary.rows[static_cast<size_t>(r)];
        assert(position >= 0 && position < rotary.cos->rows());
        cpu::rotate_row(isa_, x.row<T>(r), heads, head_dim, half, rotary.cos->row<T>(position),
                        rotary.sin->row<T>(position));
      }
    });
  });
}

void CpuBackend::attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                           const AttentionArgs& args, std::span<Operand> outs) {
  with_type(q.dtype(), [&]<typename T>(T*) {
    Tensor result = empty(q.dtype(), q.rows(), q.cols());
    {
      const std::lock_guard lock(turn_);
      cpu::attention(isa_, order_, pool_, q, k, v, batch.offsets, args, result);
    }
    if (outs.size() == 1 && is_plain<T>(outs[0].type)) {
      for (int64_t r = 0; r < result.rows(); ++r) zero_padding(result, r);
      outs[0].values = std::move(result);
      return;
    }
    int64_t row_bytes = 0;
    for (Operand& out : outs) {
      out.values = empty(out.type.storage, q.rows(), q.cols());
      row_bytes += q.cols() * static_cast<int64_t>(sizeof(T) + dtype_size(out.type.storage));
    }
    for_rows(q.rows(), row_bytes, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        for (Operand& out : outs) fill_row<T>(isa_, result.row<T>(r), q.cols(), out, r);
      }
    });
  });
}

Tensor CpuBackend::gather(const Tensor& x, std::span<const int32_t> rows) {
  Tensor result = empty(x.dtype(), static_cast<int64_t>(rows.size()), x.cols());
  const auto size = static_cast<int64_t>(dtype_size(x.dtype()));
  const auto* from = static_cast<const std::byte*>(x.data());
  auto* to = static_cast<std::byte*>(result.data());
  for_rows(result.rows(), 2 * x.cols() * size, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t source = rows[static_cast<size_t>(r)];
      assert(source >= 0 && source < x.rows());
      std::memcpy(to + r * result.stride() * size, from + source * x.stride() * size,
                  static_cast<size_t>(x.cols() * size));
    }
  });
  return result;
}

}  // namespace mxlm
