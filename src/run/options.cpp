#include "run/options.hpp"

namespace mxlm {

DType compute_dtype(const ModelSpec& model, api::ComputeType choice) {
  switch (choice) {
    case api::ComputeType::float32:
      return DType::f32;
    case api::ComputeType::bfloat16:
      return DType::bf16;
    case api::ComputeType::automatic:
      break;
  }
  return model.dtype == DType::bf16 ? DType::bf16 : DType::f32;
}

}  // namespace mxlm
