#pragma once

// Matrix products of operands and weights as sums of products on the tensor cores, with float32's accuracy
// (docs/numerics.md):
//   * bfloat16 by bfloat16 (and FP8 by FP8) is one product.
//   * float32 by float32: each side is two float16 parts with a power of two a row, x = 2^e (x0 + x1), so three
//     products: x0 w1 + x1 w0 + x0 w0. The parts hold 22 bits and the sign of the lower one, so x is off by at most
//     2^-23 |x|, and the product that is left out is at most 2^-22 |x w|: each of K terms is off like a product rounded
//     once or twice, at random, while the sum is rounded K times. In the small products parts are scaled so that none
//     of them leaves float16's range, x1 w0 as (2^5 x1) (2^-5 w0): values below about 2^-22 of their row's largest lose
//     bits there, a product then being off by 2^-45 (max|x| |w| + |x| max|w|) with the rows' largest magnitudes. One
//     sum on the tensor cores takes all three, the small ones first. (After Ootomo and Yokota, "Recovering single
//     precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022.)
//   * float32 by bfloat16, whose range float16 has not: the float32 side is three bfloat16 parts, so three products.

#include "backend/cuda/gemm.hpp"
#include "backend/cuda/powers.cuh"
#include "backend/cuda/weights.hpp"

namespace mxlm::cuda {

/// Values of an operand as products read them.
struct Factor {
  std::shared_ptr<void> memory;  // of the parts; null where the operand's own values are read
  const void* data = nullptr;
  DType type = DType::bf16;
  int64_t rows = 0, stride = 0;
  int parts = 1;  // 3: [x0 | x1 | x2] (float16: [x1 | x0 | x0]), each stride / 3 columns
  ScaleMode scale_mode = ScaleMode::none;
  const void* scales = nullptr;
  const float* powers = nullptr;  // [rows] of float16 parts: what sums still want
};

class Products {
 public:
  Products(DeviceCache& memory, cudaStream_t stream, bool reversed)
      : memory_(memory), stream_(stream), reversed_(reversed), gemm_(memory) {}

  Factor factor(const Tensor& values);
  /// Float32 values for a weight in halves.
  Factor halves(const Tensor& values);
  /// Values in FP8 with a float32 scale a row, or an E8M0 scale a block.
  static Factor scaled(const Tensor& codes, const Tensor& scales);
  /// True if the product can go to bfloat16, with a bias; else it needs float32 for its partial sums.
  [[nodiscard]] bool single(const Factor& x, const Weight& w) const;
  /// out [rows, n] = x[first_row...] w[first...]^T without scales and the powers of halves; `bias` (of out's type,
  /// single products only) may be null.
  void multiply(const Factor& x, int64_t first_row, const Weight& w, int64_t first, const void* bias, const View& out);

 private:
  DeviceCache& memory_;
  const cudaStream_t stream_;
  const bool reversed_;  // sums in another order, for measuring what the order does
  Gemm gemm_;
};

/// What sums want to become a product; null pointers and an empty view are left out.
struct Scales {
  Powers powers;
  const float* rows = nullptr;
  View outliers;  // float32 sums
  const float* columns = nullptr;
  const float* bias = nullptr;
};
/// out = (row scale x sums [+ outliers]) x column scale [+ bias], after the sums' powers; each operation rounded to
/// float32, the result to out's type. `sums` are float32; `out` may be the sums.
void scale_sums(const View& sums, const Scales& scales, const View& out, cudaStream_t stream);
/// float32 values as bfloat16, for biases.
void convert_bias(const float* in, void* out, int64_t n, cudaStream_t stream);

}  // namespace mxlm::cuda
