#pragma once

// The prepared weights of a worker, and what stays of them between shards.

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "variants/spec_hash.hpp"

namespace mxlm {

/// What stays of a weight between shards.
enum class KeptForm : uint8_t {
  nothing,   // streaming: each step makes the weight from the checkpoint, and its last user frees it
  codes,     // the store keeps the weight encoded (packed codes for block formats), and each step decodes it
  prepared,  // the store keeps the prepared weight
};

/// Prepared weights by Linear and weight spec. All kept forms give the same bits. A weight is first rounded to bfloat16
/// in a bfloat16 run of a float32 or float16 checkpoint, and in all runs with Arithmetic::bf16_rounded.
class WeightStore {
 public:
  WeightStore(Backend& backend, DType compute, KeptForm form) : backend_(backend), compute_(compute), form_(form) {}

  /// The prepared weight, and whether get() has made it now. The caller releases the source when it is no longer
  /// needed.
  struct Weight {
    std::shared_ptr<const PreparedWeight> prepared;
    bool made = false;
  };
  Weight get(const LinearSpec& linear, const ProductSpec& product);
  /// Tells the operating system to read ahead what get() will read of this Linear.
  void will_need(const LinearSpec& linear) const;
  /// The matrix that get() will prepare or keep. nullopt if get() has nothing to make, or if the checkpoint does not
  /// hold the matrix in the form that get() reads.
  [[nodiscard]] std::optional<HostMatrix> source_of(const LinearSpec& linear, const ProductSpec& product) const;
  /// PreparedWeight::route of the weight that get() made last for these arguments; "" if it has made nothing.
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
  /// The key of an entry of a Linear: the spec of its weights, and whether they are rounded.
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
