#pragma once

// The base of backends that wrap another backend.

#include <memory>
#include <utility>

#include "backend/backend.hpp"

namespace mxlm {

/// Passes every operation on to another backend. Classes derived from it look at, or change, a few operations. All
/// operations of Backend are pure virtual, so the compiler reports an operation that is missing here.
class ForwardingBackend : public Backend {
 public:
  /// `inner` is borrowed.
  explicit ForwardingBackend(Backend& inner) : inner_(inner) {}

  [[nodiscard]] std::string description() const override { return inner_.description(); }
  Mark mark() override { return inner_.mark(); }
  double seconds(const Mark& from, const Mark& to) override { return inner_.seconds(from, to); }
  [[nodiscard]] DeviceMemory device_memory() const override { return inner_.device_memory(); }
  [[nodiscard]] RouteCounts route_counts() override { return inner_.route_counts(); }
  Tensor empty(DType type, int64_t rows, int64_t cols) override { return inner_.empty(type, rows, cols); }
  Tensor upload(const HostMatrix& source, DType type) override { return inner_.upload(source, type); }
  void copy(const Tensor& from, Tensor& to) override { inner_.copy(from, to); }
  void download(const Tensor& from, std::span<float> out) override { inner_.download(from, out); }
  void compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) override {
    inner_.compare(reference, other, rows);
  }
  void compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> window_offsets,
                       std::span<ErrorSums> sums) override {
    inner_.compare_windows(reference, other, window_offsets, sums);
  }
  void settle() override { inner_.settle(); }
  void prefetch(const HostMatrix& source) override { inner_.prefetch(source); }
  void forget(const HostMatrix& source) override { inner_.forget(source); }
  void hold_table(const HostMatrix& table) override { inner_.hold_table(table); }
  void drop_table(const HostMatrix& table) override { inner_.drop_table(table); }
  std::shared_ptr<const PreparedWeight> prepare(const HostMatrix& source, const OperandSpec& spec) override {
    return inner_.prepare(source, spec);
  }
  std::shared_ptr<const KeptWeight> keep(const HostMatrix& source, const OperandSpec& spec) override {
    return inner_.keep(source, spec);
  }
  std::shared_ptr<const PreparedWeight> prepare(std::shared_ptr<const KeptWeight> kept) override {
    return inner_.prepare(std::move(kept));
  }
  [[nodiscard]] OperandType operand_type(const OperandSpec& activations, const PreparedWeight& weight,
                                         DType model) const override {
    return inner_.operand_type(activations, weight, model);
  }
  void embed(const Batch& batch, const HostMatrix& table, float multiplier, const HostMatrix* positions,
             int64_t position_offset, Tensor& hidden) override {
    inner_.embed(batch, table, multiplier, positions, position_offset, hidden);
  }
  void norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
            std::span<Operand> outs) override {
    inner_.norm(x, args, window_offsets, outs);
  }
  void norm(const Tensor& x, const NormArgs& args, Tensor& out) override { inner_.norm(x, args, out); }
  void operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) override {
    inner_.operands(x, window_offsets, outs);
  }
  void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) override {
    inner_.linear(x, weight, epilogue, out);
  }
  void rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) override {
    inner_.rotate(x, heads, head_stride, rotary);
  }
  void clamp(Tensor& x, float limit) override { inner_.clamp(x, limit); }
  void round_to_bf16(Tensor& x) override { inner_.round_to_bf16(x); }
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch, const AttentionArgs& args,
                 std::span<Operand> outs) override {
    inner_.attention(q, k, v, batch, args, outs);
  }
  void activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                  std::span<const int64_t> window_offsets, std::span<Operand> outs) override {
    inner_.activation(x, activation, arithmetic, window_offsets, outs);
  }
  void gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                        std::span<const int64_t> window_offsets, std::span<Operand> outs) override {
    inner_.gated_activation(gate, up, args, window_offsets, outs);
  }
  void add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) override {
    inner_.add(a, b, multiplier, out);
  }
  Routing choose_experts(const Tensor& logits, const RoutingArgs& args) override {
    return inner_.choose_experts(logits, args);
  }
  void accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights,
                  Tensor& sum) override {
    inner_.accumulate(y, rows, weights, sum);
  }
  void zero(Tensor& x) override { inner_.zero(x); }
  Tensor gather(const Tensor& x, std::span<const int32_t> rows) override { return inner_.gather(x, rows); }
  void score(std::span<const HeadJob> inputs, std::span<const int32_t> targets) override {
    inner_.score(inputs, targets);
  }
  void logits(const HeadJob& input, std::span<float> out) override { inner_.logits(input, out); }

 protected:
  Backend& inner_;
};

}  // namespace mxlm
