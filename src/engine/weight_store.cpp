#include "engine/weight_store.hpp"

#include <utility>

namespace mxlm {

const WeightStore::Entry* WeightStore::find(const LinearSpec& linear, const ProductSpec& product) const {
  const auto entries = entries_.find(&linear);
  if (entries == entries_.end()) return nullptr;
  const auto entry = entries->second.find(key(product));
  return entry == entries->second.end() ? nullptr : &entry->second;
}

WeightStore::Weight WeightStore::get(const LinearSpec& linear, const ProductSpec& product) {
  const OperandSpec& spec = product.weights;
  Entry& entry = entries_[&linear][key(product)];
  if (auto prepared = entry.prepared.lock()) return {.prepared = std::move(prepared), .made = false};

  const auto from_source = [&](const auto& make) {
    std::vector<std::byte> storage;
    const HostMatrix source = linear.weight.view(storage);
    if (rounds(product)) {
      make(RoundedMatrix(source).view());
    } else {
      make(source);
    }
  };
  std::shared_ptr<const PreparedWeight> prepared;
  if (form_ == KeptForm::codes) {
    if (!entry.kept) from_source([&](const HostMatrix& m) { entry.kept = backend_.keep(m, spec); });
    prepared = backend_.prepare(entry.kept);
  } else {
    from_source([&](const HostMatrix& m) { prepared = backend_.prepare(m, spec); });
    if (form_ == KeptForm::prepared) entry.strong = prepared;
  }
  entry.prepared = prepared;
  entry.route = prepared->route();
  return {.prepared = std::move(prepared), .made = true};
}

void WeightStore::will_need(const LinearSpec& linear) const {
  if (form_ == KeptForm::nothing || !entries_.contains(&linear)) linear.weight.will_need();
}

std::optional<HostMatrix> WeightStore::source_of(const LinearSpec& linear, const ProductSpec& product) const {
  const HostMatrix* source = linear.weight.in_place();
  if (source == nullptr || (rounds(product) && source->type != DType::bf16)) return std::nullopt;
  const Entry* entry = find(linear, product);
  if (entry != nullptr && (entry->kept || !entry->prepared.expired())) return std::nullopt;
  return *source;
}

std::string WeightStore::route(const LinearSpec& linear, const ProductSpec& product) const {
  const Entry* entry = find(linear, product);
  return entry == nullptr ? "" : entry->route;
}

}  // namespace mxlm
