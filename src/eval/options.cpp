#include "eval/options.hpp"

namespace mxlm {

DType compute_dtype(const ModelSpec& model, DTypeChoice choice) {
  switch (choice) {
    case DTypeChoice::float32:
      return DType::f32;
    case DTypeChoice::bfloat16:
      return DType::bf16;
    case DTypeChoice::automatic:
      break;
  }
  return model.dtype == DType::bf16 ? DType::bf16 : DType::f32;
}

}  // namespace mxlm
