#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "variants/spec_hash.hpp"

namespace mxlm {

/// What stays of a weight between rounds.
enum class KeptForm : uint8_t {
  nothing,   // made from the checkpoint whenever a step asks for it, gone with its last user: streaming
  codes,     // a kept form (packed codes for block formats), decoded whenever a step asks for it
  prepared,  // the prepared form itself
};

/// Prepared weights by (Linear, spec of its weights). All forms give the same bits. In a bfloat16 run of a float32 or
/// float16 checkpoint a weight is rounded to bfloat16 first, as it is everywhere in Arithmetic::bf16_rounded.
class WeightStore {
 public:
  WeightStore(Backend& backend, DType compute, KeptForm form) : backend_(backend), compute_(compute), form_(form) {}

  /// The prepared weight, and whether it had to be made. The caller releases the source once nobody needs it.
  struct Weight {
    std::shared_ptr<const PreparedWeight> prepared;
    bool made = false;
  };
  Weight get(const LinearSpec& linear, const ProductSpec& product);
  /// Lets the kernel read ahead what get() will read of this Linear.
  void will_need(const LinearSpec& linear) const;
  /// The matrix that get() will prepare or keep, if there is anything to make and it lies in the checkpoint as it is.
  [[nodiscard]] std::optional<HostMatrix> source_of(const LinearSpec& linear, const ProductSpec& product) const;
  /// PreparedWeight::route of what get() made last for this; "" if it made nothing.
  [[nodiscard]] std::string route(const LinearSpec& linear, const ProductSpec& product) const;

 private:
  struct Entry {
    std::shared_ptr<const KeptWeight> kept;
    std::shared_ptr<const PreparedWeight> strong;
    std::weak_ptr<const PreparedWeight> prepared;
    std::string route;
  };
  [[nodiscard]] bool rounds(const ProductSpec& product) const {
    return compute_ == DType::bf16 || product.arithmetic == Arithmetic::bf16_rounded;
  }
  /// What entries of a Linear are told apart by: the spec of its weights, and whether they are rounded.
  [[nodiscard]] ProductSpec key(const ProductSpec& product) const {
    return {.weights = product.weights,
            .activations = {},
            .arithmetic = rounds(product) ? Arithmetic::bf16_rounded : Arithmetic::model_dtype};
  }
  [[nodiscard]] const Entry* find(const LinearSpec& linear, const ProductSpec& product) const;
  Backend& backend_;
  DType compute_;
  KeptForm form_;
  std::unordered_map<const LinearSpec*, std::unordered_map<ProductSpec, Entry, WeightsHash, SameWeights>> entries_;
};

}  // namespace mxlm
