#pragma once

// From the values of an activation to operands in the specs that were asked for.

#include <span>
#include <vector>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/fold.cuh"

namespace mxlm::cuda {

/// How the operands of an activation [rows, cols] are made: `launches` and `folds` are what its producer writes in one
/// pass each; `rest`, formats off the fast path and block-scaled ones, are made from `plain`, the values themselves,
/// which are among the targets then.
struct OperandPlan {
  std::vector<Targets> launches;
  std::vector<FoldTargets> folds;
  std::vector<Operand*> rest;
  View plain;
  Tensor aside;  // memory of `plain` where no operand is plain
};

/// Allocates the operands and says who makes them. With `from`, the activation is there already: it is `plain`.
OperandPlan plan_operands(CudaBackend& backend, DType model, int64_t rows, int64_t cols, std::span<Operand> outs,
                          const View* from = nullptr);
/// Makes `rest`, after the producer ran for every launch.
void finish_operands(CudaBackend& backend, const OperandPlan& plan, std::span<const int64_t> window_offsets);

/// The target that writes `out` as it is, zeros up to `width` columns.
Target plain_target(const View& out, int64_t width);
/// The target that writes `out` in a format of the fast path, zeros up to its stride.
Target quantized_target(const View& out, const mx::Format& format);

}  // namespace mxlm::cuda
