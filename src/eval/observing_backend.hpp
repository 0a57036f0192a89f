#pragma once

#include <functional>
#include <vector>

#include "backend/backend.hpp"

namespace mxlm {

/// Another backend that also shows what every Linear reads: asks each producer of operands for its activation as it
/// was before quantising, too. Everything else is passed on, so that the ordinary path pays nothing for this.
class ObservingBackend final : public Backend {
 public:
  /// Called before each product: the operand, the activation it was made from (in the model dtype), and the weight.
  using OnLinear = std::function<void(const Operand& x, const Tensor& plain, const PreparedWeight& weight)>;

  /// `inner` is borrowed; `model` is the dtype of the run.
  ObservingBackend(Backend& inner, DType model, OnLinear on_linear)
      : inner_(inner), model_(model), on_linear_(std::move(on_linear)) {}

  /// The activation that an operand was made from, null if it came from elsewhere.
  [[nodiscard]] const Tensor* plain(const Operand& operand) const;

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
  void norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> windows, std::span<Operand> outs) override;
  void norm(const Tensor& x, const NormArgs& args, Tensor& out) override { inner_.norm(x, args, out); }
  void operands(const Tensor& x, std::span<const int64_t> windows, std::span<Operand> outs) override;
  void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) override;
  void rotate(Tensor& x, int heads, int head_stride, const Rotary& rotary) override {
    inner_.rotate(x, heads, head_stride, rotary);
  }
  void clamp(Tensor& x, float limit) override { inner_.clamp(x, limit); }
  void round_to_bf16(Tensor& x) override { inner_.round_to_bf16(x); }
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch, const AttentionArgs& args,
                 std::span<Operand> outs) override;
  void activation(const Tensor& x, Activation activation, bool bf16_ops, std::span<const int64_t> windows,
                  std::span<Operand> outs) override;
  void gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args, std::span<const int64_t> windows,
                        std::span<Operand> outs) override;
  void add(const Tensor& a, const Tensor& b, float multiplier, Tensor& out) override {
    inner_.add(a, b, multiplier, out);
  }
  Routing route(const Tensor& logits, const RouteArgs& args) override { return inner_.route(logits, args); }
  void accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights,
                  Tensor& sum) override {
    inner_.accumulate(y, rows, weights, sum);
  }
  void zero(Tensor& x) override { inner_.zero(x); }
  Tensor gather(const Tensor& x, std::span<const int32_t> rows) override { return inner_.gather(x, rows); }
  void score(std::span<const HeadInput> inputs, std::span<const int32_t> targets) override {
    inner_.score(inputs, targets);
  }
  void logits(const HeadInput& input, std::span<float> out) override { inner_.logits(input, out); }

 private:
  /// Lets `produce` make `outs` and one operand more, the activation itself, and remembers which came from it.
  void produce(std::span<Operand> outs, const std::function<void(std::span<Operand>)>& make);

  struct Seen {
    std::vector<const void*> operands;  // where their values lie
    Tensor plain;
  };
  Backend& inner_;
  DType model_;
  OnLinear on_linear_;
  std::vector<Seen> seen_;  // latest last
};

}  // namespace mxlm
