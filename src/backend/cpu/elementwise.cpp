// The operations of the CPU backend that work row by row, and those that end in operands.

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "backend/cpu/activation_rows.hpp"
#include "backend/cpu/attention.hpp"
#include "backend/cpu/bf16_ops.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/norm_rows.hpp"
#include "backend/cpu/quantize.hpp"
#include "backend/cpu/reference_formats.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/cpu/scratch.hpp"
#include "base/error.hpp"
#include "mx/reference_format.hpp"

namespace mxlm {
namespace {

using cpu::Isa;

constexpr uintptr_t kAlignment = 64;  // of rows, as products want them
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
  if (out.type.spec && mx::has_row_scales(*out.type.spec)) {
    if (mx::needs_whole_tensor(*out.type.spec)) return;  // fill_by_window
    cpu::OuterScale outer{.scale = 0, .amax = cpu::largest_magnitude(isa, row, n, /*inliers=*/false)};
    outer.scale = mx::outer_scale(*out.type.spec, outer.amax);
    out.row_scales.row<float>(0)[r] = outer.scale;
    if (bf16) {
      cpu::quantize_scaled_row(isa, *out.type.spec, outer, nullptr, row, n, out.values.row<BFloat16>(r));
    } else {
      cpu::quantize_scaled_row(isa, *out.type.spec, outer, nullptr, row, n, out.values.row<float>(r));
    }
  } else if (out.type.spec) {
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

bool looks_at_windows(const Operand& out) { return out.type.spec && mx::needs_whole_tensor(*out.type.spec); }

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
  pool_.run((rows + per_task - 1) / per_task,
            [&](int64_t task, int /*worker*/) { body(task * per_task, std::min((task + 1) * per_task, rows)); });
}

template <typename T, typename Produce>
void CpuBackend::make_operands(int64_t rows, int64_t cols, std::span<const int64_t> window_offsets,
                               std::span<Operand> outs, const Produce& produce) {
  int64_t row_bytes = 4 * cols * static_cast<int64_t>(sizeof(T));
  for (Operand& out : outs) {
    out.values = empty(out.type.storage, rows, cols);
    if (out.type.spec && mx::has_row_scales(*out.type.spec)) out.row_scales = empty(DType::f32, 1, rows);
    row_bytes += cols * static_cast<int64_t>(dtype_size(out.type.storage));
  }
  // The row is computed in the first operand that wants it as it is, so that the usual case copies nothing.
  const auto plain = std::find_if(outs.begin(), outs.end(), [](const Operand& o) { return is_plain<T>(o.type); });
  Tensor whole;
  if (std::any_of(outs.begin(), outs.end(), looks_at_windows)) whole = empty(kType<T>, rows, cols);
  for_rows(rows, row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* row = !whole.empty()        ? whole.row<T>(r)
               : plain == outs.end() ? row_scratch<T>(cols)
                                     : plain->values.template row<T>(r);
      produce(r, row);
      for (Operand& out : outs) fill_row<T>(isa_, row, cols, out, r);
    }
  });
  for (Operand& out : outs) {
    if (looks_at_windows(out)) fill_by_window<T>(whole, window_offsets, out);
  }
}

template <typename T>
void CpuBackend::fill_by_window(const Tensor& x, std::span<const int64_t> window_offsets, Operand& out) {
  const mx::Format& format = *out.type.spec;
  const bool inliers = format.scaling == mx::Scaling::int8_outliers;
  const int64_t rows = x.rows();
  const int64_t cols = x.cols();
  const std::vector<int64_t> one_window{0, rows};
  if (window_offsets.empty()) window_offsets = one_window;
  assert(window_offsets.front() == 0 && window_offsets.back() == rows);
  const auto count = static_cast<int64_t>(window_offsets.size()) - 1;
  const int64_t row_bytes = 2 * cols * static_cast<int64_t>(sizeof(T));
  std::vector<cpu::OuterScale> outer(static_cast<size_t>(rows));
  for_rows(rows, row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      outer[static_cast<size_t>(r)].amax = cpu::largest_magnitude(isa_, x.row<T>(r), cols, inliers);
    }
  });
  // [window, column]: whether LLM.int8 leaves the column out
  std::vector<uint8_t> flags(inliers ? static_cast<size_t>(count * cols) : 0);
  std::vector<int64_t> window_of(static_cast<size_t>(rows));
  std::vector<uint8_t> any(static_cast<size_t>(count));
  {
    pool_.run(count, [&](int64_t w, int /*worker*/) {
      const int64_t first = window_offsets[static_cast<size_t>(w)];
      const int64_t last = window_offsets[static_cast<size_t>(w) + 1];
      uint32_t amax = 0;
      for (int64_t r = first; r < last; ++r) {
        window_of[static_cast<size_t>(r)] = w;
        amax = std::max(amax, outer[static_cast<size_t>(r)].amax);
        if (inliers && cpu::mark_outliers(x.row<T>(r), cols, flags.data() + w * cols)) any[static_cast<size_t>(w)] = 1;
      }
      for (int64_t r = first; r < last; ++r) {
        cpu::OuterScale& scale = outer[static_cast<size_t>(r)];
        if (!inliers) scale.amax = amax;
        scale.scale = mx::outer_scale(format, scale.amax);
        out.row_scales.row<float>(0)[r] = scale.scale;
      }
    });
  }
  if (std::find(any.begin(), any.end(), 1) != any.end()) {
    // A float32 weight is multiplied with float32 alone.
    out.outliers = empty(out.type.storage == DType::f32 ? DType::f32 : kType<T>, rows, cols);
  }
  for_rows(rows, 2 * row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* row = x.row<T>(r);
      const uint8_t* left_out = inliers ? flags.data() + window_of[static_cast<size_t>(r)] * cols : nullptr;
      const cpu::OuterScale& scale = outer[static_cast<size_t>(r)];
      if (out.type.storage == DType::bf16) {
        cpu::quantize_scaled_row(isa_, format, scale, left_out, row, cols, out.values.row<BFloat16>(r));
      } else {
        cpu::quantize_scaled_row(isa_, format, scale, left_out, row, cols, out.values.row<float>(r));
      }
      zero_padding(out.values, r);
      if (out.outliers.empty()) continue;
      const auto keep = [&](auto* kept) {
        for (int64_t c = 0; c < cols; ++c) kept[c] = {};
        for (int64_t c = 0; c < cols; ++c) {
          if (left_out[c] != 0) cpu::convert_row(isa_, kType<T>, row + c, out.outliers.dtype(), kept + c, 1);
        }
      };
      if (out.outliers.dtype() == DType::bf16) {
        keep(out.outliers.row<BFloat16>(r));
      } else {
        keep(out.outliers.row<float>(r));
      }
      zero_padding(out.outliers, r);
    }
  });
}

template <typename T>
void CpuBackend::fill_operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  // Where nothing is to be done and rows need no padding, the operand is the activation itself.
  const bool ready = x.cols() % cpu::kDepth == 0 && x.stride() % cpu::kDepth == 0 &&
                     reinterpret_cast<uintptr_t>(x.data()) % kAlignment == 0;
  if (ready && outs.size() == 1 && is_plain<T>(outs[0].type)) {
    outs[0].values = x.columns(0, x.cols());
    return;
  }
  int64_t row_bytes = 0;
  for (Operand& out : outs) {
    out.values = empty(out.type.storage, x.rows(), x.cols());
    if (out.type.spec && mx::has_row_scales(*out.type.spec)) out.row_scales = empty(DType::f32, 1, x.rows());
    row_bytes += x.cols() * static_cast<int64_t>(sizeof(T) + dtype_size(out.type.storage));
  }
  for_rows(x.rows(), row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (Operand& out : outs) fill_row<T>(isa_, x.row<T>(r), x.cols(), out, r);
    }
  });
  for (Operand& out : outs) {
    if (looks_at_windows(out)) fill_by_window<T>(x, window_offsets, out);
  }
}

void CpuBackend::embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
                       int64_t position_offset, Tensor& hidden) {
  assert(hidden.rows() == batch.rows() && hidden.cols() == table.cols);
  for (const int32_t token : batch.tokens) {
    if (token < 0 || token >= table.rows) {
      fail("Token id {} is outside the model's vocabulary of {}; use the tokenizer that belongs to the model.", token,
           table.rows);
    }
  }
  std::vector<int64_t> position;  // of each token, as a row of `positions`
  if (positions != nullptr) {
    assert(positions->cols == table.cols);
    for (int64_t w = 0; w < batch.windows(); ++w) {
      const int64_t length = batch.offsets[static_cast<size_t>(w) + 1] - batch.offsets[static_cast<size_t>(w)];
      if (length + position_offset > positions->rows) {
        fail("A window of {} tokens is longer than the {} positions that the model knows; use shorter windows.", length,
             positions->rows - position_offset);
      }
      for (int64_t i = 0; i < length; ++i) position.push_back(i + position_offset);
    }
  }
  const auto table_size = static_cast<int64_t>(dtype_size(table.type));
  with_type(hidden.dtype(), [&]<typename T>(T*) {
    const int64_t row_bytes = table.cols * static_cast<int64_t>(sizeof(T) + dtype_size(table.type));
    for_rows(hidden.rows(), row_bytes, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t token = batch.tokens[static_cast<size_t>(r)];
        T* row = hidden.row<T>(r);
        cpu::convert_row(isa_, table.type, table.data + token * table.stride * table_size, kType<T>, row, table.cols);
        if (multiplier != 1) cpu::scale_row(isa_, multiplier, table.cols, row);
        if (positions == nullptr) continue;
        T* learned = row_scratch<T>(table.cols);
        const auto step = positions->stride * static_cast<int64_t>(dtype_size(positions->type));
        cpu::convert_row(isa_, positions->type, positions->data + position[static_cast<size_t>(r)] * step, kType<T>,
                         learned, table.cols);
        cpu::add_row(isa_, row, learned, 1, table.cols, row);
      }
    });
  });
}

namespace {

/// Calls f(group's first column, NormRow) for every group of a row.
template <typename T, typename F>
void for_groups(const NormArgs& args, int64_t cols, const F& f) {
  const int64_t group = args.group == 0 ? cols : args.group;
  cpu::NormRow<T> norm{.kind = args.kind,
                       .weight = nullptr,
                       .bias = nullptr,
                       .epsilon = args.epsilon,
                       .weight_offset = args.weight_offset,
                       .round_before_weight = args.round_before_weight,
                       .arithmetic = args.arithmetic};
  const auto part = [&](const Tensor* of, int64_t column) -> const T* {
    return of == nullptr ? nullptr : of->row<T>(0) + (of->cols() == cols ? column : 0);
  };
  for (int64_t column = 0; column < cols; column += group) {
    norm.weight = part(args.weight, column);
    norm.bias = part(args.bias, column);
    f(column, group, norm);
  }
}

template <typename T>
void norm_group(cpu::Isa isa, const cpu::NormRow<T>& norm, const T* x, int64_t n, T* y) {
  norm.arithmetic == Arithmetic::bf16_rounded ? cpu::layer_norm_row_bf16(norm, x, n, y)
                                              : cpu::norm_row(isa, norm, x, n, y);
}

void check_norm(const Tensor& x, const NormArgs& args) {
  assert(args.arithmetic != Arithmetic::bf16_rounded || args.kind == NormKind::layer);
  assert(args.group >= 0 && (args.group == 0 || x.cols() % args.group == 0));
  for (const Tensor* t : {args.weight, args.bias}) {
    assert(t == nullptr || (t->dtype() == x.dtype() && (t->cols() == x.cols() || t->cols() == args.group)));
    static_cast<void>(t);
  }
  static_cast<void>(x);
  static_cast<void>(args);
}

}  // namespace

void CpuBackend::norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
                      std::span<Operand> outs) {
  check_norm(x, args);
  with_type(x.dtype(), [&]<typename T>(T*) {
    make_operands<T>(x.rows(), x.cols(), window_offsets, outs, [&](int64_t r, T* y) {
      for_groups<T>(args, x.cols(), [&](int64_t column, int64_t count, const cpu::NormRow<T>& norm) {
        norm_group(isa_, norm, x.row<T>(r) + column, count, y + column);
      });
    });
  });
}

void CpuBackend::norm(const Tensor& x, const NormArgs& args, Tensor& out) {
  check_norm(x, args);
  assert(out.dtype() == x.dtype() && out.rows() == x.rows() && out.cols() == x.cols());
  with_type(x.dtype(), [&]<typename T>(T*) {
    for_rows(x.rows(), 2 * x.cols() * static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        for_groups<T>(args, x.cols(), [&](int64_t column, int64_t count, const cpu::NormRow<T>& norm) {
          norm_group(isa_, norm, x.row<T>(r) + column, count, out.row<T>(r) + column);
        });
      }
    });
  });
}

void CpuBackend::operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  with_type(x.dtype(), [&]<typename T>(T*) { fill_operands<T>(x, window_offsets, outs); });
}

void CpuBackend::activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                            std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  assert(activation != Activation::swiglu_oai);
  with_type(x.dtype(), [&]<typename T>(T*) {
    make_operands<T>(x.rows(), x.cols(), window_offsets, outs, [&](int64_t r, T* y) {
      arithmetic == Arithmetic::bf16_rounded ? cpu::activation_row_bf16(activation, x.row<T>(r), x.cols(), y)
                                             : cpu::activation_row(isa_, activation, x.row<T>(r), x.cols(), y);
    });
  });
}

void CpuBackend::gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                                  std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  const int64_t cols = args.interleaved ? gate.cols() / 2 : gate.cols();
  assert(args.interleaved ? gate.cols() % 2 == 0
                          : gate.dtype() == up.dtype() && gate.rows() == up.rows() && gate.cols() == up.cols());
  with_type(gate.dtype(), [&]<typename T>(T*) {
    make_operands<T>(gate.rows(), cols, window_offsets, outs, [&](int64_t r, T* y) {
      const T* up_row = args.interleaved ? nullptr : up.row<T>(r);
      args.arithmetic == Arithmetic::bf16_rounded ? cpu::gated_row_bf16(args, gate.row<T>(r), up_row, cols, y)
                                                  : cpu::gated_row(isa_, args, gate.row<T>(r), up_row, cols, y);
    });
  });
}

void CpuBackend::rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) {
  const DType tables = rotary.cos->dtype();
  const cpu::Rotation rotation{.heads = heads,
                               .head_stride = head_stride,
                               .half = static_cast<int>(rotary.cos->cols()),
                               .interleaved = rotary.interleaved};
  assert(x.cols() >= static_cast<int64_t>(heads - 1) * head_stride + 2 * rotation.half);
  assert(2 * rotation.half <= head_stride && rotary.sin->cols() == rotary.cos->cols());
  assert(rotary.sin->dtype() == tables && (tables == x.dtype() || tables == DType::f32));
  assert(static_cast<int64_t>(rotary.rows.size()) == x.rows());
  const auto run = [&]<typename T, typename Table>(T*, Table*) {
    for_rows(x.rows(), 2 * x.cols() * static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int32_t position = rotary.rows[static_cast<size_t>(r)];
        assert(position >= 0 && position < rotary.cos->rows());
        cpu::rotate_row(isa_, rotation, x.row<T>(r), rotary.cos->row<Table>(position),
                        rotary.sin->row<Table>(position));
      }
    });
  };
  constexpr auto* kWide = static_cast<float*>(nullptr);
  constexpr auto* kNarrow = static_cast<BFloat16*>(nullptr);
  if (x.dtype() == DType::f32) return run(kWide, kWide);
  tables == DType::f32 ? run(kNarrow, kWide) : run(kNarrow, kNarrow);
}

void CpuBackend::clamp(Tensor& x, float limit) {
  assert(limit >= 0);
  with_type(x.dtype(), [&]<typename T>(T*) {
    for_rows(x.rows(), 2 * x.cols() * static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) cpu::clamp_row(isa_, limit, x.cols(), x.row<T>(r));
    });
  });
}

void CpuBackend::round_to_bf16(Tensor& x) {
  if (x.dtype() == DType::bf16) return;
  for_rows(x.rows(), 2 * x.cols() * static_cast<int64_t>(sizeof(float)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) cpu::round_row_bf16(x.row<float>(r), x.cols());
  });
}

void CpuBackend::add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) {
  assert(a.rows() == b.rows() && a.cols() == b.cols() && out.rows() == b.rows() && out.cols() == b.cols());
  assert(b.dtype() == out.dtype() && (a.dtype() == b.dtype() || a.dtype() == DType::f32));
  const auto run = [&]<typename A, typename T>(A*, T*) {
    for_rows(b.rows(), b.cols() * static_cast<int64_t>(sizeof(A) + 2 * sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        cpu::add_row(isa_, a.row<A>(r), b.row<T>(r), multiplier, b.cols(), out.row<T>(r));
      }
    });
  };
  constexpr auto* kWide = static_cast<float*>(nullptr);
  constexpr auto* kNarrow = static_cast<BFloat16*>(nullptr);
  if (b.dtype() == DType::f32) return run(kWide, kWide);
  a.dtype() == DType::f32 ? run(kWide, kNarrow) : run(kNarrow, kNarrow);
}

void CpuBackend::attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                           const AttentionArgs& args, std::span<Operand> outs) {
  Tensor result = empty(q.dtype(), q.rows(), static_cast<int64_t>(args.heads) * args.head_dim);
  { cpu::attention(isa_, order_, pool_, q, k, v, batch.offsets, batch.keys, args, result); }
  with_type(q.dtype(), [&]<typename T>(T*) {
    if (outs.size() == 1 && is_plain<T>(outs[0].type)) {
      for (int64_t r = 0; r < result.rows(); ++r) zero_padding(result, r);
      outs[0].values = std::move(result);
    } else {
      fill_operands<T>(result, batch.offsets, outs);
    }
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
