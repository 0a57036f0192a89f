#pragma once

// A variant matched against a model: which Linear, and which attention product, is computed in what. Targets are
// matched here and nowhere else.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "variants/variant.hpp"

namespace mxlm {

struct ResolvedVariant {
  std::vector<ProductSpec> specs;                   // distinct clauses' specs
  std::vector<uint32_t> spec_of;                    // [Linear] -> index of `specs`
  ProductSpec qk, pv;                               // of every layer
  Arithmetic arithmetic = Arithmetic::model_dtype;  // of all products and vector operations ("vector=bf16")
  std::vector<size_t> unmatched;                    // clauses whose target matches nothing

  /// The spec of a Linear, by its index in ModelSpec::linears().
  [[nodiscard]] const ProductSpec& linear(size_t i) const { return specs[spec_of[i]]; }
  /// The spec of the LM head, the last of ModelSpec::linears(). It has no outputs: these are the logits.
  [[nodiscard]] const ProductSpec& head() const { return specs[spec_of.back()]; }
};

/// Matches every clause against these Linears; where several match, the last one counts. Routers are never replaced,
/// and outputs of the LM head are never quantised.
ResolvedVariant resolve(std::span<const NamedLinear> linears, const Variant& variant);

/// Throws UsageError if a clause of the variant matched nothing, listing what there is.
void require_matches(std::span<const NamedLinear> linears, const Variant& variant, const ResolvedVariant& resolved);

/// The same for the Linears of a model; every clause has to match something, as require_matches says.
ResolvedVariant resolve(const ModelSpec& model, const Variant& variant);
std::vector<ResolvedVariant> resolve(const ModelSpec& model, std::span<const Variant> variants);

/// The Linears of a model, in the order of ModelSpec::linears(). Borrows their names.
std::vector<NamedLinear> named_linears(const ModelSpec& model);

}  // namespace mxlm
