#include "backend/cuda/epilogue.hpp"
#include "backend/cuda/finish.cuh"
#include "backend/cuda/generic.hpp"

namespace mxlm::cuda {
namespace {

template <typename T>
void finish(const View& y, const Powers& powers, const float* bias, const OperandSpec& outputs, float multiplier,
            const View& residual, Arithmetic arithmetic, const View& out, cudaStream_t stream) {
  Finish step;
  step.arithmetic = arithmetic;
  step.powers = powers;
  step.bias = bias;
  if (outputs && is_fast(*outputs)) {
    step.quantize = true;
    step.quantizer = make_quantizer(*outputs);
  } else if (outputs) {
    // In y, which is whole then.
    if (arithmetic == Arithmetic::bf16_rounded || bias != nullptr || powers.rows != nullptr)
      launch_finish<T, T>(step, y, {}, y, stream);
    if (mx::has_row_scales(*outputs)) {
      ScaledRows args;
      args.multiply = true;
      quantize_scaled_rows(*outputs, y, y, y.cols, args, stream);
    } else {
      quantize_rows(*outputs, y, y, y.cols, stream);
    }
    step = {};
  }
  step.multiplier = multiplier;
  launch_finish<T, T>(step, y, residual, out, stream);
}

}  // namespace

void finish_rows(const View& y, const Powers& powers, const float* bias, const OperandSpec& outputs, float multiplier,
                 const View& residual, Arithmetic arithmetic, const View& out, cudaStream_t stream) {
  assert(y.type == out.type && y.rows == out.rows && y.cols == out.cols);
  assert(!outputs || !mx::needs_whole_tensor(*outputs));
  assert(powers.rows == nullptr || out.type == DType::f32);
  if (out.type == DType::bf16) {
    finish<BFloat16>(y, powers, bias, outputs, multiplier, residual, arithmetic, out, stream);
  } else {
    finish<float>(y, powers, bias, outputs, multiplier, residual, arithmetic, out, stream);
  }
}

}  // namespace mxlm::cuda
