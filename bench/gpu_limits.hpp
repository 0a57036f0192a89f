#pragma once

// What NVIDIA's libraries alone reach on this GPU: the limits that a forward pass is held against.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace mxlm::bench {

/// x [m, k] times w [n, k] transposed.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};

/// Causal attention of windows of one length.
struct SdpaShape {
  int64_t windows = 0, length = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
};

/// How FP8 products sum: in the tensor cores' own precision, or promoted to float32 on the way.
enum class Fp8Sums : uint8_t { fast, precise };

/// The products and attention of a model's forward pass.
struct ForwardShape {
  int layers = 0;
  std::vector<GemmShape> layer;
  SdpaShape attention;
  GemmShape head;  // in BF16
};

/// Times are seconds of one call, the best of several groups of calls in a row, with random operands.
class GpuLimits {
 public:
  GpuLimits();
  ~GpuLimits();
  GpuLimits(const GpuLimits&) = delete;
  GpuLimits& operator=(const GpuLimits&) = delete;

  /// A BF16 product of cuBLASLt, the fastest of the eight algorithms it proposes.
  double bf16_gemm(const GemmShape& shape);
  /// An FP8 (E4M3) product with a float32 scale for each row of both sides and BF16 results; nullopt if this GPU or
  /// library has none.
  std::optional<double> fp8_gemm(const GemmShape& shape, Fp8Sums sums);
  /// cuDNN's scaled dot-product attention in BF16, heads packed in rows; nullopt if it is not here.
  std::optional<double> sdpa(const SdpaShape& shape);
  /// All products and attentions of a forward pass, one after the other, in BF16 or (but for the head) in FP8: the best
  /// of several whole passes, after two that warm up. What the power limit allows over so long a time is in it.
  std::optional<double> forward(const ForwardShape& shape, std::optional<Fp8Sums> sums);
  /// Bytes a second of a copy within the device, read and written ones counted.
  double copy_bandwidth();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm::bench
