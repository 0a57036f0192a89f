#pragma once

// A backend that shows the input of every Linear, for the study of Linears.

#include <functional>
#include <vector>

#include "engine/forwarding_backend.hpp"

namespace mxlm {

/// Wraps another backend and shows what every Linear reads. It asks each producer of operands for one more operand: the
/// activation before quantising. All other operations are passed on. The observation is a wrapper so that ordinary runs
/// pay nothing for it.
class ObservingBackend final : public ForwardingBackend {
 public:
  /// Called before each product with its operand, the activation that the operand was made from (in the model dtype)
  /// and the weight.
  using OnLinear = std::function<void(const Operand& x, const Tensor& plain, const PreparedWeight& weight)>;

  /// `inner` is borrowed; `model` is the dtype of the run.
  ObservingBackend(Backend& inner, DType model, OnLinear on_linear)
      : ForwardingBackend(inner), model_(model), on_linear_(std::move(on_linear)) {}

  /// The activation that an operand was made from; nullptr if no producer of this backend made the operand.
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
  /// Calls `make` for `outs` and for one more operand, the activation itself, and remembers that they belong together.
  void produce(std::span<Operand> outs, const std::function<void(std::span<Operand>)>& make);

  struct Seen {
    std::vector<const void*> operands;  // addresses of their values
    Tensor plain;
  };
  DType model_;
  OnLinear on_linear_;
  std::vector<Seen> seen_;  // the latest is the last
};

}  // namespace mxlm
