#pragma once

// What the forward pass keeps on the device for the whole run: norms, biases, sinks and rotary tables. This header is
// private to the room.

#include <unordered_map>
#include <vector>

#include "model/forward.hpp"

namespace mxlm {

struct ForwardPass::Constants {
  struct Norm {
    Tensor weight, bias;
  };
  std::unordered_map<const NormSpec*, Norm> norms;
  std::unordered_map<const LinearSpec*, Tensor> biases;  // float32 [1, outputs]
  std::unordered_map<const AttentionSpec*, std::vector<float>> sinks;
  std::vector<std::shared_ptr<const RotaryTable>> tables;  // of the last micro-batch, in the order of ModelSpec::ropes

  [[nodiscard]] const Tensor* bias(const LinearSpec& linear) const {
    const auto found = biases.find(&linear);
    return found == biases.end() ? nullptr : &found->second;
  }
  [[nodiscard]] NormArgs norm(const NormSpec& spec, Arithmetic arithmetic) const {
    const Norm& tensors = norms.at(&spec);
    return {.kind = spec.kind,
            .weight = tensors.weight.empty() ? nullptr : &tensors.weight,
            .bias = tensors.bias.empty() ? nullptr : &tensors.bias,
            .epsilon = spec.epsilon,
            .weight_offset = spec.weight_offset,
            .round_before_weight = spec.round_before_weight,
            .group = spec.group,
            .arithmetic = spec.kind == NormKind::layer && !spec.by_operators ? arithmetic : Arithmetic::model_dtype};
  }
};

}  // namespace mxlm
