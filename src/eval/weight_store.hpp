#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"

namespace mxlm {

/// Prepared weights by (Linear, spec of its weights). Streaming: each is made from the checkpoint when a step asks for
/// it and is gone with its last user. Resident: a kept form stays between rounds (packed codes for block formats), so
/// that the checkpoint is read and quantised once. Both give the same bits. In a bfloat16 run of a float32 or float16
/// checkpoint a weight is rounded to bfloat16 first, as it is everywhere under `bf16_ops`.
class WeightStore {
 public:
  WeightStore(Backend& backend, DType compute, bool resident)
      : backend_(backend), compute_(compute), resident_(resident) {}

  /// The prepared weight, and the seconds that making it took. The caller releases the source once nobody needs it.
  std::pair<std::shared_ptr<const PreparedWeight>, double> get(const LinearSpec& linear, const ProductSpec& product);
  /// Lets the kernel read ahead what get() will read of this Linear.
  void will_need(const LinearSpec& linear) const;

 private:
  struct Entry {
    OperandSpec spec;
    bool rounded;
    std::shared_ptr<const KeptWeight> kept;
    std::weak_ptr<const PreparedWeight> prepared;
  };
  Backend& backend_;
  DType compute_;
  bool resident_;
  std::map<const LinearSpec*, std::vector<Entry>> entries_;
};

}  // namespace mxlm
