#pragma once

// The class behind make_cuda_backend. backend.cpp has memory, weights and products; elementwise.cu, norm.cu,
// activation.cu, operands.cu, experts.cu and compare.cu what works row by row; attention*.{cpp,cu} attention; head.cu
// the LM head. All work of a backend is on one stream, so no operation waits for another; only those that return
// figures to the host wait for the device.

#include <map>
#include <optional>
#include <span>
#include <vector>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/products.hpp"
#include "backend/cuda/runtime.hpp"
#include "backend/cuda/sdpa.hpp"
#include "backend/cuda/staging.hpp"

namespace mxlm {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  [[nodiscard]] std::string description() const override;
  Mark mark() override;
  double seconds(const Mark& from, const Mark& to) override;
  [[nodiscard]] DeviceMemory device_memory() const override;
  [[nodiscard]] RouteCounts route_counts() override;

  // backend.cpp
  Tensor empty(DType type, int64_t rows, int64_t cols) override;
  Tensor upload(const HostMatrix& source, DType type) override;
  void download(const Tensor& from, std::span<float> out) override;
  void prefetch(const HostMatrix& source) override;
  void forget(const HostMatrix& source) override;
  void hold_table(const HostMatrix& table) override;
  void drop_table(const HostMatrix& table) override;
  std::shared_ptr<const PreparedWeight> prepare(const HostMatrix& source, const OperandSpec& spec) override;
  std::shared_ptr<const KeptWeight> keep(const HostMatrix& source, const OperandSpec& spec) override;
  std::shared_ptr<const PreparedWeight> prepare(std::shared_ptr<const KeptWeight> kept) override;
  [[nodiscard]] OperandType operand_type(const OperandSpec& activations, const PreparedWeight& weight,
                                         DType model) const override;
  void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) override;

  // elementwise.cu
  void copy(const Tensor& from, Tensor& to) override;
  void embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
             int64_t position_offset, Tensor& hidden) override;
  void rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) override;
  void clamp(Tensor& x, float limit) override;
  void round_to_bf16(Tensor& x) override;
  void add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) override;
  void zero(Tensor& x) override;
  Tensor gather(const Tensor& x, std::span<const int32_t> rows) override;
  // norm.cu, activation.cu, operands.cu
  void norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
            std::span<Operand> outs) override;
  void norm(const Tensor& x, const NormArgs& args, Tensor& out) override;
  void activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                  std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                        std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  // experts.cu, compare.cu
  Routing choose_experts(const Tensor& logits, const RoutingArgs& args) override;
  void accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights, Tensor& sum) override;
  void compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) override;
  void compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> window_offsets,
                       std::span<ErrorSums> sums) override;
  void settle() override;
  // attention.cpp
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch, const AttentionArgs& args,
                 std::span<Operand> outs) override;
  // head.cu
  void score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) override;
  void logits(const HeadJob& input, std::span<float> out) override;

  // --- for the files above
  [[nodiscard]] cudaStream_t stream() const { return stream_.get(); }
  /// Scratch that lives until the work asked for so far has used it (handing it back early is fine: one stream).
  std::shared_ptr<void> scratch(size_t bytes) { return memory_.allocate(bytes); }
  /// A device copy of a small host array (offsets, row numbers, scales), in order with the stream's work; the source
  /// may be gone at once.
  template <typename T>
  std::shared_ptr<T> to_device(std::span<const T> values) {
    return std::static_pointer_cast<T>(to_device_bytes(values.data(), values.size_bytes()));
  }
  /// Waits for the stream and copies `bytes` back.
  void to_host(void* to, const void* from, size_t bytes);
  /// The memory of an operand of this type: values [rows, cols] of its storage, and the row scales and outliers that
  /// its format has.
  void allocate_operand(int64_t rows, int64_t cols, DType model, Operand& out);
  /// The device's copy of a table that is held; nullopt if it is not, or too large.
  [[nodiscard]] std::optional<cuda::View> resident_table(const HostMatrix& table) const;
  [[nodiscard]] int multiprocessors() const { return multiprocessors_; }

 private:
  /// What GemmRoute::fast is on this device.
  enum class Fast : uint8_t {
    none,    // exact products only
    folded,  // fold.hpp
    native,  // native.hpp
  };

  std::shared_ptr<void> to_device_bytes(const void* from, size_t bytes);
  /// Memory of a weight's rows, and kRowSlack - 1 of zeros behind them.
  std::shared_ptr<void> weight_memory(size_t bytes, size_t row_bytes);
  /// Float32 or float16 values as a weight in halves, and such a weight in bfloat16 parts.
  std::shared_ptr<cuda::Weight> halve(const cuda::View& values);
  std::shared_ptr<cuda::Weight> split(const cuda::Weight& halves);
  /// A weight with its exponents folded; null where they do not fit.
  std::shared_ptr<cuda::Weight> fold(const mx::Format& format, const cuda::View& values);
  /// The FP8 type of operands on this device's fast route; nullopt where they have none.
  [[nodiscard]] std::optional<DType> fast_type(const OperandSpec& spec, bool weight, int64_t cols) const;
  /// A weight in block-scaled form.
  std::shared_ptr<cuda::Weight> scale_blocks(const mx::Format& format, const cuda::View& values);
  /// The weight in the layout that an operand of this storage is multiplied with.
  const cuda::Weight& layout_for(DType storage, const cuda::Weight& weight);
  /// The operand as products with this weight read it.
  cuda::Factor factor_of(const Operand& x, const cuda::Weight& weight);
  /// What is still to be done to sums of rows from `first_row` and outputs from `first` on, in float32: powers (if the
  /// caller gives any), scales, and outliers' products.
  void finish_sums(const Operand& x, const cuda::Factor& outliers, const cuda::Weight& weight, int64_t first_row,
                   int64_t first, const cuda::Powers& powers, const float* bias, const cuda::View& sums,
                   const cuda::View& out);
  /// Rows of a product that folding could not hold.
  void recompute(const Operand& x, const cuda::Weight& weight, int64_t first_row, int64_t first, const cuda::View& out);
  /// `out` = x W^T with scales, outliers and bias.
  void product(const Operand& x, const cuda::Weight& weight, const float* bias, Tensor& out);
  /// Float32 products of the head for rows from `first_row` and outputs from `first` on.
  void head_products(const cuda::Factor& values, const cuda::Factor& outliers, const HeadJob& input, int64_t first_row,
                     int64_t first, const cuda::View& out);

  CudaOptions options_;
  std::string name_;
  int multiprocessors_ = 0;
  Fast fast_ = Fast::none;
  cuda::DeviceCache memory_;  // made first: it makes the device the current one
  cuda::Stream stream_;
  cuda::SmallUploads small_;  // pinned ring for to_device
  cuda::Staging staging_;     // weights on their way
  cuda::Products products_;
  cuda::Sdpa sdpa_;
  std::map<const std::byte*, cuda::Staging::Arrived> tables_;
  /// Sums of compare_windows that nobody has fetched yet: where they lie among `sums_` and where they go.
  struct Pending {
    size_t first;
    std::span<ErrorSums> to;
  };
  std::vector<Pending> pending_;
  std::shared_ptr<void> sums_;  // device, ErrorSums
  size_t sums_used_ = 0;
  RouteCounts routes_;               // what the host counts
  std::shared_ptr<void> fell_back_;  // and the device: an unsigned long long
};

}  // namespace mxlm
