#pragma once

// Matches a variant against a model, which gives the product spec of every Linear and attention product. No other file
// matches targets.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "variants/variant.hpp"

namespace mxlm {

/// A variant whose targets are matched against the Linears of a model.
struct ResolvedVariant {
  std::vector<ProductSpec> specs;                   // specs of the clauses, each once
  std::vector<uint32_t> spec_of;                    // [Linear] -> index of `specs`
  ProductSpec qk, pv;                               // of all layers
  Arithmetic arithmetic = Arithmetic::model_dtype;  // of all products and vector operations ("vector=bf16")
  std::vector<size_t> unmatched;                    // indices of clauses whose target matches nothing

  /// The spec of a Linear, by its index in ModelSpec::linears().
  [[nodiscard]] const ProductSpec& linear(size_t i) const { return specs[spec_of[i]]; }
  /// The spec of the LM head, the last of ModelSpec::linears(). It never quantises outputs, because these are the
  /// logits.
  [[nodiscard]] const ProductSpec& head() const { return specs[spec_of.back()]; }
};

/// Matches every clause against these Linears. Where several clauses match, the last clause counts. Routers are never
/// replaced, and outputs of the LM head are never quantised.
ResolvedVariant resolve(std::span<const NamedLinear> linears, const Variant& variant);

/// Throws UsageError if a clause of the variant matches nothing. The message lists the possible targets.
void require_matches(std::span<const NamedLinear> linears, const Variant& variant, const ResolvedVariant& resolved);

/// Matches variants against the Linears of a model. Throws as require_matches does if a clause matches nothing.
ResolvedVariant resolve(const ModelSpec& model, const Variant& variant);
std::vector<ResolvedVariant> resolve(const ModelSpec& model, std::span<const Variant> variants);

/// The Linears of a model, in the order of ModelSpec::linears(). The names are borrowed from the model.
std::vector<NamedLinear> named_linears(const ModelSpec& model);

}  // namespace mxlm
