#pragma once

// Matrix products by cuBLASLt, with one algorithm for each (N, K, types): chosen once without split-K and used for
// every number of rows, so that a row gives the same bits whatever else is in the batch.

#include <cstdint>
#include <memory>

#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// out [M, N] = x [M, K] w [N, K]^T, all rows packed along K, sums in float32.
struct Product {
  const void* x = nullptr;
  const void* w = nullptr;
  void* out = nullptr;
  DType x_type = DType::bf16;  // bf16, f8_e4m3 or f8_e5m2
  DType w_type = DType::bf16;
  DType out_type = DType::bf16;  // bf16 or f32
  int64_t m = 0, n = 0, k = 0;
  int64_t x_stride = 0, w_stride = 0, out_stride = 0;  // elements
  const void* bias = nullptr;                          // [N] of out's type, added in float32; not together with `add`
  const float* x_scales = nullptr;                     // [M], FP8 only
  const float* w_scales = nullptr;                     // [N], FP8 only
  bool add = false;                                    // out += (float32 out)
};

class Gemm {
 public:
  Gemm();
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;
  void run(const Product& product, cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm::cuda
