#include "eval/weight_store.hpp"

#include <algorithm>
#include <chrono>

namespace mxlm {

std::pair<std::shared_ptr<const PreparedWeight>, double> WeightStore::get(const LinearSpec& linear,
                                                                          const ProductSpec& product) {
  const OperandSpec& spec = product.weights;
  const bool rounded = compute_ == DType::bf16 || product.bf16_ops;
  auto& entries = entries_[&linear];
  auto entry = std::find_if(entries.begin(), entries.end(),
                            [&](const Entry& e) { return e.spec == spec && e.rounded == rounded; });
  if (entry == entries.end()) {
    entries.push_back({.spec = spec, .rounded = rounded, .kept = nullptr, .prepared = {}});
    entry = std::prev(entries.end());
  }
  if (auto prepared = entry->prepared.lock()) return {std::move(prepared), 0.0};

  const auto start = std::chrono::steady_clock::now();
  const auto from_source = [&](const auto& make) {
    std::vector<std::byte> storage;
    const HostMatrix source = linear.weight.view(storage);
    if (rounded) {
      make(RoundedMatrix(source).view());
    } else {
      make(source);
    }
  };
  std::shared_ptr<const PreparedWeight> prepared;
  if (resident_) {
    if (!entry->kept) from_source([&](const HostMatrix& m) { entry->kept = backend_.keep(m, spec); });
    prepared = backend_.prepare(entry->kept);
  } else {
    from_source([&](const HostMatrix& m) { prepared = backend_.prepare(m, spec); });
  }
  entry->prepared = prepared;
  return {std::move(prepared), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
}

void WeightStore::will_need(const LinearSpec& linear) const {
  if (!resident_ || !entries_.contains(&linear)) linear.weight.will_need();
}

}  // namespace mxlm
