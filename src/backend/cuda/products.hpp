#pragma once

// Matrix products of operands and weights as sums of bfloat16 products: a float32 matrix is the sum of three bfloat16
// ones, so that a product of two takes six products on the tensor cores, at more than twice the speed of float32
// arithmetic and with its accuracy (docs/numerics.md).

#include "backend/cuda/gemm.hpp"
#include "backend/cuda/weights.hpp"

namespace mxlm::cuda {

/// Values of an operand as products read them.
struct Factor {
  std::shared_ptr<void> memory;  // of the parts; null where the operand's own values are read
  const void* data = nullptr;
  DType type = DType::bf16;
  int64_t rows = 0, stride = 0;
  int parts = 1;  // 3: [x0 | x1 | x2], each stride / 3 columns
  ScaleMode scale_mode = ScaleMode::none;
  const void* scales = nullptr;
};

class Products {
 public:
  Products(DeviceCache& memory, cudaStream_t stream, bool reversed)
      : memory_(memory), stream_(stream), reversed_(reversed), gemm_(memory) {}

  Factor factor(const Tensor& values);
  /// Values in FP8 with a float32 scale a row, or an E8M0 scale a block.
  static Factor scaled(const Tensor& codes, const Tensor& scales);
  /// True if the product can go to bfloat16, with a bias; else it needs float32 for its partial sums.
  [[nodiscard]] bool single(const Factor& x, const Weight& w) const;
  /// out [rows, n] = x[first_row...] w[first...]^T without scales; `bias` (of out's type, single products only) may be
  /// null.
  void multiply(const Factor& x, int64_t first_row, const Weight& w, int64_t first, const void* bias, const View& out);

 private:
  DeviceCache& memory_;
  const cudaStream_t stream_;
  const bool reversed_;  // sums in another order, for measuring what the order does
  Gemm gemm_;
};

/// out = (row scale x sums [+ outliers]) x column scale [+ bias], each operation rounded to float32, the result to
/// out's type. Null pointers and an empty view are left out. `sums` and `outliers` are float32.
void scale_sums(const View& sums, const float* row_scales, const View& outliers, const float* column_scales,
                const float* bias, const View& out, cudaStream_t stream);
/// float32 values as bfloat16, for biases.
void convert_bias(const float* in, void* out, int64_t n, cudaStream_t stream);

}  // namespace mxlm::cuda
