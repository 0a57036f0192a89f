#pragma once

// Matrix products by cuBLASLt, with one algorithm for each (N, K, types), without split-K, for every number of rows, so
// that a row gives the same bits whatever else is in the batch. The library's first proposal sets the bits; of its
// other proposals, those that give the same bits are timed at the first large product, and the fastest is used from
// then on. So timing, which differs from run to run, never changes a digit.

#include <cstdint>
#include <memory>

#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// What the scales of a product are.
enum class ScaleMode : uint8_t {
  none,
  rows,    // FP8: float32, one a row of either side, [M] and [N]
  blocks,  // FP8: E8M0 codes, one for 32 values of either side, as scale_layout.hpp has them
};

/// out [M, N] = x [M, K] w [N, K]^T, all rows packed along K, sums in float32.
struct Product {
  const void* x = nullptr;
  const void* w = nullptr;
  void* out = nullptr;
  DType x_type = DType::bf16;  // bf16, f16, f8_e4m3 or f8_e5m2
  DType w_type = DType::bf16;
  DType out_type = DType::bf16;  // bf16 or f32
  int64_t m = 0, n = 0, k = 0;
  int64_t x_stride = 0, w_stride = 0, out_stride = 0;  // elements
  const void* bias = nullptr;                          // [N] of out's type, added in float32; not together with `add`
  ScaleMode scale_mode = ScaleMode::none;
  const void* x_scales = nullptr;
  const void* w_scales = nullptr;
  bool add = false;  // out += (float32 out)
};

/// True if two matrices of one shape and type have the same bits; waits for the stream (products.cu).
bool same_bits(const View& a, const View& b, int32_t* scratch, cudaStream_t stream);

class Gemm {
 public:
  /// `memory` lends space for comparing proposals.
  explicit Gemm(DeviceCache& memory);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;
  void run(const Product& product, cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm::cuda
