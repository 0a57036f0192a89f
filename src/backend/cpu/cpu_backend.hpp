#pragma once

#include <chrono>
#include <functional>
#include <span>

#include "backend/cpu/backend.hpp"
#include "backend/cpu/buffers.hpp"
#include "backend/cpu/weights.hpp"
#include "base/parallel.hpp"

namespace mxlm {

/// The operations on x86-64 processors; see make_cpu_backend. backend.cpp has memory, weights and products,
/// elementwise.cpp what works row by row, experts.cpp what experts need, head.cpp the LM head.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options);

  [[nodiscard]] std::string description() const override;
  [[nodiscard]] DeviceMemory device_memory() const override { return {}; }
  [[nodiscard]] RouteCounts route_counts() override { return {}; }
  Mark mark() override { return {.time = std::chrono::steady_clock::now(), .event = nullptr}; }
  double seconds(const Mark& from, const Mark& to) override {
    return std::chrono::duration<double>(to.time - from.time).count();
  }

  Tensor empty(DType type, int64_t rows, int64_t cols) override;
  Tensor upload(const HostMatrix& source, DType type) override;
  void copy(const Tensor& from, Tensor& to) override;
  void download(const Tensor& from, std::span<float> out) override;
  void compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) override;
  void compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> window_offsets,
                       std::span<ErrorSums> sums) override;
  void settle() override {}

  // Weights and tables are read where they lie.
  void prefetch(const HostMatrix& /*source*/) override {}
  void forget(const HostMatrix& /*source*/) override {}
  void hold_table(const HostMatrix& /*table*/) override {}
  void drop_table(const HostMatrix& /*table*/) override {}
  std::shared_ptr<const PreparedWeight> prepare(const HostMatrix& source, const OperandSpec& spec) override;
  std::shared_ptr<const KeptWeight> keep(const HostMatrix& source, const OperandSpec& spec) override;
  std::shared_ptr<const PreparedWeight> prepare(std::shared_ptr<const KeptWeight> kept) override;
  [[nodiscard]] OperandType operand_type(const OperandSpec& activations, const PreparedWeight& weight,
                                         DType model) const override;

  void embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
             int64_t position_offset, Tensor& hidden) override;
  void norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
            std::span<Operand> outs) override;
  void norm(const Tensor& x, const NormArgs& args, Tensor& out) override;
  void operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) override;
  void rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) override;
  void clamp(Tensor& x, float limit) override;
  void round_to_bf16(Tensor& x) override;
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch, const AttentionArgs& args,
                 std::span<Operand> outs) override;
  void activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                  std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                        std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) override;

  Routing choose_experts(const Tensor& logits, const RoutingArgs& args) override;
  void accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights, Tensor& sum) override;
  void zero(Tensor& x) override;

  Tensor gather(const Tensor& x, std::span<const int32_t> rows) override;
  void score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) override;
  void logits(const HeadJob& input, std::span<float> out) override;

 private:
  /// Calls body(begin, end) for ranges that cover [0, rows), on the pool; a row moves about `row_bytes`.
  void for_rows(int64_t rows, int64_t row_bytes, const std::function<void(int64_t begin, int64_t end)>& body);
  /// Makes the operands' memory, then fills them from rows that `produce(row, y)` computes in dtype T.
  template <typename T, typename Produce>
  void make_operands(int64_t rows, int64_t cols, std::span<const int64_t> window_offsets, std::span<Operand> outs,
                     const Produce& produce);
  /// The same from the rows of a tensor that is there already.
  template <typename T>
  void fill_operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs);
  /// Fills an operand whose format looks at whole windows (mx::needs_whole_tensor), from the activation.
  template <typename T>
  void fill_by_window(const Tensor& x, std::span<const int64_t> window_offsets, Operand& out);
  /// float32 [rows, outputs], what the operand's outliers contribute to the product; empty if there are none.
  Tensor outlier_product(const Operand& x, const PreparedWeight& weight);
  [[nodiscard]] cpu::WeightMaker maker() { return {isa_, &pool_, &buffers_}; }

  const cpu::Isa isa_;
  const cpu::Order order_;
  ThreadPool pool_;
  cpu::BufferCache buffers_;
};

}  // namespace mxlm
