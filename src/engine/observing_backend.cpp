#include "engine/observing_backend.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace mxlm {
namespace {

// No step has this many producers between an operand and the product that reads it.
constexpr size_t kRemembered = 8;

}  // namespace

void ObservingBackend::produce(std::span<Operand> outs, const std::function<void(std::span<Operand>)>& make) {
  std::vector<Operand> all(std::make_move_iterator(outs.begin()), std::make_move_iterator(outs.end()));
  all.push_back({.type = {.spec = std::nullopt, .storage = model_}});
  make(all);
  Seen seen;
  seen.plain = std::move(all.back().values);
  for (size_t i = 0; i < outs.size(); ++i) {
    outs[i] = std::move(all[i]);
    seen.operands.push_back(outs[i].values.data());
  }
  if (seen_.size() == kRemembered) seen_.erase(seen_.begin());
  seen_.push_back(std::move(seen));
}

const Tensor* ObservingBackend::plain(const Operand& operand) const {
  // The search begins with the latest, because a newer operand may lie in memory that an older operand had.
  for (auto seen = seen_.rbegin(); seen != seen_.rend(); ++seen) {
    const auto& all = seen->operands;
    if (std::find(all.begin(), all.end(), operand.values.data()) != all.end()) return &seen->plain;
  }
  return nullptr;
}

void ObservingBackend::norm(const Tensor& x, const NormArgs& args, std::span<const int64_t> window_offsets,
                            std::span<Operand> outs) {
  produce(outs, [&](std::span<Operand> all) { inner_.norm(x, args, window_offsets, all); });
}

void ObservingBackend::operands(const Tensor& x, std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  produce(outs, [&](std::span<Operand> all) { inner_.operands(x, window_offsets, all); });
}

void ObservingBackend::attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                                 const AttentionArgs& args, std::span<Operand> outs) {
  produce(outs, [&](std::span<Operand> all) { inner_.attention(q, k, v, batch, args, all); });
}

void ObservingBackend::activation(const Tensor& x, Activation activation, Arithmetic arithmetic,
                                  std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  produce(outs, [&](std::span<Operand> all) { inner_.activation(x, activation, arithmetic, window_offsets, all); });
}

void ObservingBackend::gated_activation(const Tensor& gate, const Tensor& up, const GatedArgs& args,
                                        std::span<const int64_t> window_offsets, std::span<Operand> outs) {
  produce(outs, [&](std::span<Operand> all) { inner_.gated_activation(gate, up, args, window_offsets, all); });
}

void ObservingBackend::linear(const Operand& x, const PreparedWeight& weight, const LinearEpilogue& epilogue,
                              Tensor& out) {
  if (const Tensor* before = plain(x)) on_linear_(x, *before, weight);
  inner_.linear(x, weight, epilogue, out);
}

}  // namespace mxlm
