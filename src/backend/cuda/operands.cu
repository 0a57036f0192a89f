#include "backend/cuda/fast_operand.hpp"
#include "backend/cuda/generic.hpp"
#include "backend/cuda/native.hpp"
#include "backend/cuda/operands.hpp"

namespace mxlm {
namespace cuda {
namespace {

void append(std::vector<Targets>& launches, const Target& target) {
  if (launches.empty() || launches.back().count == kMaxTargets) launches.emplace_back();
  Targets& last = launches.back();
  last.at[last.count++] = target;
}

/// The target that folds into an operand.
FoldTarget fold_target(Operand& out) {
  FoldTarget target;
  const View codes = view(out.values);
  target.out = make_rows(codes.data, DType::u8, codes.stride, codes.stride);
  FastOperand& fast = *fast_part(out);
  target.row_scales = fast.scales.row<float>(0);
  set_format(target, *out.type.spec, codes.type == DType::f8_e5m2);
  if (!fast.inexact.empty()) {
    target.inexact = fast.inexact.row<BFloat16>(0);
    target.inexact_stride = fast.inexact.stride();
    target.inexact_rows = fast.inexact_rows.row<int32_t>(0);
  }
  return target;
}

}  // namespace

Target plain_target(const View& out, int64_t width) {
  Target target;
  target.out = make_rows(out.data, out.type, out.stride, width);
  target.f32 = out.type == DType::f32;
  return target;
}

Target quantized_target(const View& out, const mx::Format& format) {
  Target target = plain_target(out, out.stride);
  target.quantize = true;
  target.quantizer = make_quantizer(format);
  return target;
}

OperandPlan plan_operands(CudaBackend& backend, DType model, int64_t rows, int64_t cols, std::span<Operand> outs,
                          const View* from) {
  OperandPlan plan;
  if (from != nullptr) plan.plain = *from;
  for (Operand& out : outs) {
    backend.allocate_operand(rows, cols, model, out);
    const View values = view(out.values);
    if (!out.type.spec) {
      append(plan.launches, plain_target(values, values.stride));
      if (values.type == model && plan.plain.data == nullptr) plan.plain = values;
    } else if (dtype_size(values.type) == 1 && !is_native(out)) {
      if (plan.folds.empty() || plan.folds.back().count == kMaxFolds) plan.folds.emplace_back();
      FoldTargets& last = plan.folds.back();
      last.at[last.count++] = fold_target(out);
    } else if (!is_native(out) && is_fast(*out.type.spec)) {
      append(plan.launches, quantized_target(values, *out.type.spec));
    } else {
      plan.rest.push_back(&out);
    }
  }
  if (!plan.rest.empty() && plan.plain.data == nullptr) {
    plan.aside = backend.empty(model, rows, cols);
    plan.plain = view(plan.aside);
    append(plan.launches, plain_target(plan.plain, cols));
  }
  return plan;
}

void finish_operands(CudaBackend& backend, const OperandPlan& plan, std::span<const int64_t> window_offsets) {
  const View& x = plan.plain;
  const cudaStream_t stream = backend.stream();
  if (plan.rest.empty() || x.rows == 0) return;
  std::vector<int32_t> window_of(static_cast<size_t>(x.rows));
  int64_t count = 1;
  if (!window_offsets.empty()) {
    assert(window_offsets.front() == 0 && window_offsets.back() == x.rows);
    count = static_cast<int64_t>(window_offsets.size()) - 1;
    for (int64_t w = 0; w < count; ++w) {
      std::fill(window_of.begin() + window_offsets[static_cast<size_t>(w)],
                window_of.begin() + window_offsets[static_cast<size_t>(w) + 1], static_cast<int32_t>(w));
    }
  }
  std::shared_ptr<int32_t> window_of_row;  // on the device
  for (Operand* out : plan.rest) {
    const mx::Format& format = *out->type.spec;
    const View values = view(out->values);
    if (is_native(*out)) {
      encode_native(format, x, values, fast_part(*out)->scales.data(), stream);
      continue;
    }
    if (!mx::has_row_scales(format)) {
      quantize_rows(format, x, values, values.stride, stream);
      continue;
    }
    ScaledRows args;
    args.row_scales = out->row_scales.row<float>(0);
    std::shared_ptr<void> scratch;
    if (mx::needs_whole_tensor(format)) {
      if (!window_of_row) window_of_row = backend.to_device(std::span<const int32_t>(window_of));
      args.window_of = window_of_row.get();
      const bool int8 = format.scaling == mx::Scaling::int8_outliers;
      const size_t bytes = int8 ? static_cast<size_t>(count * x.cols) : static_cast<size_t>(count) * sizeof(uint32_t);
      scratch = backend.scratch(bytes);
      check(cudaMemsetAsync(scratch.get(), 0, bytes, stream), "clearing memory");
      if (int8) {
        auto* flags = static_cast<uint8_t*>(scratch.get());
        mark_outliers(x, args.window_of, flags, stream);
        args.outliers = flags;
        args.left_out = view(out->outliers);
      } else {
        auto* amax = static_cast<uint32_t*>(scratch.get());
        window_amax(x, args.window_of, amax, stream);
        args.amax = amax;
      }
    }
    quantize_scaled_rows(format, x, values, values.stride, args, stream);
  }
}

}  // namespace cuda

void CudaBackend::operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  const cuda::View from = cuda::view(x);
  // Where nothing is to be done and rows need no padding, the operand is the activation itself.
  const bool ready = x.cols() % cuda::kRowStep == 0 && x.stride() % cuda::kRowStep == 0 &&
                     reinterpret_cast<uintptr_t>(x.data()) % 16 == 0;
  std::vector<Operand> made;
  std::vector<size_t> which;
  for (size_t i = 0; i < outs.size(); ++i) {
    if (ready && !outs[i].type.spec && outs[i].type.storage == x.dtype()) {
      outs[i].values = x.columns(0, x.cols());
    } else {
      made.push_back(std::move(outs[i]));
      which.push_back(i);
    }
  }
  const cuda::OperandPlan plan = cuda::plan_operands(*this, x.dtype(), x.rows(), x.cols(), made, &from);
  const auto write = [&](const auto& source) {
    for (const cuda::Targets& targets : plan.launches) {
      cuda::launch_write_rows(source, x.rows(), x.cols(), targets, stream());
    }
    for (const cuda::FoldTargets& targets : plan.folds) {
      cuda::launch_fold_rows(source, x.rows(), x.cols(), targets, stream());
    }
  };
  if (x.dtype() == DType::bf16) {
    write(cuda::Source<BFloat16>{cuda::make_rows(from)});
  } else {
    write(cuda::Source<float>{cuda::make_rows(from)});
  }
  cuda::finish_operands(*this, plan, window_offsets);
  for (size_t i = 0; i < made.size(); ++i) outs[which[i]] = std::move(made[i]);
}

}  // namespace mxlm
