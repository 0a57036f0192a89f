#pragma once

#include <functional>
#include <vector>

#include "engine/forwarding_backend.hpp"

namespace mxlm {

/// Another backend that also shows what every Linear reads: asks each producer of operands for its activation as it
/// was before quantising, too. Everything else is passed on, so that the ordinary path pays nothing for this.
class ObservingBackend final : public ForwardingBackend {
 public:
  /// Called before each product: the operand, the activation it was made from (in the model dtype), and the weight.
  using OnLinear = std::function<void(const Operand& x, const Tensor& plain, const PreparedWeight& weight)>;

  /// `inner` is borrowed; `model` is the dtype of the run.
  ObservingBackend(Backend& inner, DType model, OnLinear on_linear)
      : ForwardingBackend(inner), model_(model), on_linear_(std::move(on_linear)) {}

  /// The activation that an operand was made from, null if it came from elsewhere.
  [[nodiscard]] const Tensor* plain(const Operand& operand) const;

  using ForwardingBackend::norm;
  void norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
            std::span<Operand> outs) override;
  void operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue, Tensor& out) override;
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch, const AttentionArgs& args,
                 std::span<Operand> outs) override;
  void activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                  std::span<const int64_t> window_offsets, std::span<Operand> outs) override;
  void gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                        std::span<const int64_t> window_offsets, std::span<Operand> outs) override;

 private:
  /// Lets `produce` make `outs` and one operand more, the activation itself, and remembers which came from it.
  void produce(std::span<Operand> outs, const std::function<void(std::span<Operand>)>& make);

  struct Seen {
    std::vector<const void*> operands;  // where their values lie
    Tensor plain;
  };
  DType model_;
  OnLinear on_linear_;
  std::vector<Seen> seen_;  // latest last
};

}  // namespace mxlm
