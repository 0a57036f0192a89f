#include "backend/cpu/backend.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "backend/cpu/bf16_ops.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/gemm_driver.hpp"
#include "backend/cpu/product_scales.hpp"
#include "backend/cpu/reference_formats.hpp"
#include "backend/cpu/rows.hpp"
#include "backend/cpu/scratch.hpp"
#include "base/error.hpp"

namespace mxlm {

using cpu::Isa;

namespace {

constexpr size_t kCachedBytes = size_t{128} << 20;

/// Distance of rows: whole steps of the matrix products' depth, and no multiple of 1 KiB, which would put the rows of a
/// tile into few sets of the first-level cache.
int64_t stride_of(DType type, int64_t cols) {
  const int64_t stride = cpu::round_up(std::max<int64_t>(cols, 1), cpu::kDepth);
  const int64_t bytes = stride * static_cast<int64_t>(dtype_size(type));
  return bytes % 1024 == 0 ? stride + cpu::kDepth : stride;
}

Isa checked(std::optional<Isa> wanted) {
  const Isa best = cpu::detect_isa();
  if (wanted && *wanted > best) {
    fail("This processor (or MXLM_ISA) does not allow the instruction set {}; the best is {}.", isa_name(*wanted),
         isa_name(best));
  }
  return wanted.value_or(best);
}

}  // namespace

CpuBackend::CpuBackend(const CpuOptions& options)
    : isa_(checked(options.isa)),
      order_(options.order),
      pool_(options.threads > 0 ? options.threads : default_thread_count()),
      buffers_(kCachedBytes) {}

std::string CpuBackend::description() const {
  return fmt::format("cpu {}{}", isa_name(isa_), order_ == cpu::Order::reversed ? " reversed" : "");
}

// --- memory

Tensor CpuBackend::empty(DType type, int64_t rows, int64_t cols) {
  assert(type == DType::f32 || type == DType::bf16);
  assert(rows >= 0 && cols >= 0);
  const int64_t stride = stride_of(type, cols);
  return {type, rows, cols, stride, buffers_.allocate(static_cast<size_t>(rows * stride) * dtype_size(type))};
}

Tensor CpuBackend::upload(const HostMatrix& source, DType type) {
  Tensor result = empty(type, source.rows, source.cols);
  const auto from_size = static_cast<int64_t>(dtype_size(source.type));
  const auto size = static_cast<int64_t>(dtype_size(type));
  auto* to = static_cast<std::byte*>(result.data());
  for_rows(source.rows, source.cols * (from_size + size), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* row = to + r * result.stride() * size;
      cpu::convert_row(isa_, source.type, source.data + r * source.stride * from_size, type, row, source.cols);
      std::memset(row + source.cols * size, 0, static_cast<size_t>((result.stride() - source.cols) * size));
    }
  });
  return result;
}

void CpuBackend::copy(const Tensor& from, Tensor& to) {
  assert(from.dtype() == to.dtype() && from.rows() == to.rows() && from.cols() == to.cols());
  const auto size = static_cast<int64_t>(dtype_size(from.dtype()));
  const auto* source = static_cast<const std::byte*>(from.data());
  auto* target = static_cast<std::byte*>(to.data());
  for_rows(from.rows(), 2 * from.cols() * size, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(target + r * to.stride() * size, source + r * from.stride() * size,
                  static_cast<size_t>(from.cols() * size));
    }
  });
}

void CpuBackend::download(const Tensor& from, std::span<float> out) {
  assert(static_cast<int64_t>(out.size()) == from.rows() * from.cols());
  const auto size = static_cast<int64_t>(dtype_size(from.dtype()));
  const auto* source = static_cast<const std::byte*>(from.data());
  for_rows(from.rows(), from.cols() * (size + 4), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      cpu::convert_row(isa_, from.dtype(), source + r * from.stride() * size, DType::f32, out.data() + r * from.cols(),
                       from.cols());
    }
  });
}

// --- weights

std::shared_ptr<const PreparedWeight> CpuBackend::prepare(const HostMatrix& source, const OperandSpec& spec) {
  return cpu::prepare_weight(maker(), source, spec);
}

std::shared_ptr<const KeptWeight> CpuBackend::keep(const HostMatrix& source, const OperandSpec& spec) {
  return cpu::keep_weight(maker(), source, spec);
}

std::shared_ptr<const PreparedWeight> CpuBackend::prepare(std::shared_ptr<const KeptWeight> kept) {
  const auto* codes = dynamic_cast<const cpu::KeptCodes*>(kept.get());
  assert(codes != nullptr);
  return cpu::prepare_kept(maker(), *codes);
}

OperandType CpuBackend::operand_type(const OperandSpec& activations, const PreparedWeight& weight, DType model) const {
  const bool exact = activations ? mx::decodes_exactly_to_bf16(*activations) : model == DType::bf16;
  return {activations, exact && weight.storage() == DType::bf16 ? DType::bf16 : DType::f32};
}

// --- products

Tensor CpuBackend::outlier_product(const Operand& x, const PreparedWeight& weight) {
  const auto& packed = dynamic_cast<const cpu::Panels&>(weight).packed();
  Tensor product;
  if (x.outliers.empty()) return product;
  const Tensor* a = &x.outliers;
  product = empty(DType::f32, a->rows(), packed.n);
  cpu::gemm(isa_, order_, pool_, a->rows(), a->dtype(), a->data(), a->stride(), packed,
            [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1, const float* tile, int64_t stride) {
              for (int64_t r = r0; r < r1; ++r) {
                const float* sums = tile + (r - r0) * stride;
                std::copy(sums, sums + (c1 - c0), product.row<float>(r) + c0);
              }
            });
  return product;
}

void CpuBackend::linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) {
  const auto& panels = dynamic_cast<const cpu::Panels&>(weight);
  const cpu::PackedPanels& packed = panels.packed();
  const Tensor& a = x.values;
  assert(a.cols() == packed.k && out.cols() == packed.n && a.rows() == out.rows());
  assert(epilogue.bias == nullptr || epilogue.bias->dtype() == DType::f32);
  assert(epilogue.residual == nullptr || epilogue.residual->dtype() == out.dtype());
  const float* own_bias = epilogue.bias == nullptr ? nullptr : epilogue.bias->row<float>(0);
  const float* bias =
      epilogue.arithmetic == Arithmetic::bf16_rounded ? nullptr : own_bias;  // else added where the product was rounded
  const cpu::ProductScales scales(x, panels);
  const Tensor outliers = outlier_product(x, weight);
  // Outputs are quantised by rows, which are whole only after the product.
  const bool later = epilogue.outputs.has_value() || epilogue.arithmetic == Arithmetic::bf16_rounded;
  Tensor aside;
  if (later && epilogue.residual != nullptr) aside = empty(out.dtype(), out.rows(), out.cols());
  Tensor& result = aside.empty() ? out : aside;
  const auto finish = [&]<typename T>(T* /*dtype*/) {
    const cpu::TileSink sink = [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1, const float* tile, int64_t stride) {
      for (int64_t r = r0; r < r1; ++r) {
        const T* residual = epilogue.residual == nullptr || later ? nullptr : epilogue.residual->row<T>(r) + c0;
        const float* sums = tile + (r - r0) * stride;
        if (!scales.none() || !outliers.empty()) {
          thread_local cpu::Scratch scratch;
          auto* scaled = reinterpret_cast<float*>(scratch.reserve(static_cast<size_t>(c1 - c0) * sizeof(float)));
          scales.apply(r, c0, sums, outliers.empty() ? nullptr : outliers.row<float>(r) + c0, c1 - c0, scaled);
          sums = scaled;
        }
        cpu::finish_row(isa_, sums, bias == nullptr ? nullptr : bias + c0, later ? 1 : epilogue.multiplier, residual,
                        c1 - c0, result.row<T>(r) + c0);
      }
    };
    { cpu::gemm(isa_, order_, pool_, a.rows(), a.dtype(), a.data(), a.stride(), packed, sink); }
    if (!later) return;
    for_rows(out.rows(), 3 * out.cols() * static_cast<int64_t>(sizeof(T)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* row = result.row<T>(r);
        if (epilogue.arithmetic == Arithmetic::bf16_rounded) cpu::add_bias_row_bf16(own_bias, out.cols(), row);
        if (epilogue.outputs) cpu::quantize_row_in_place(isa_, *epilogue.outputs, out.cols(), row);
        if (epilogue.residual != nullptr) {
          cpu::add_row(isa_, row, epilogue.residual->row<T>(r), epilogue.multiplier, out.cols(), out.row<T>(r));
        } else if (epilogue.multiplier != 1) {
          cpu::scale_row(isa_, epilogue.multiplier, out.cols(), row);
        }
      }
    });
  };
  if (out.dtype() == DType::bf16) {
    finish(static_cast<BFloat16*>(nullptr));
  } else {
    finish(static_cast<float*>(nullptr));
  }
}

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) { return std::make_unique<CpuBackend>(options); }

}  // namespace mxlm
