#include "variants/resolve.hpp"

#include <algorithm>
#include <utility>

namespace mxlm {
namespace {

/// Matches a whole name like a shell: "*" matches any run of characters, including dots, and "?" matches any character.
/// Needs no memory, and at worst pattern x name in time.
bool glob_match(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++retry;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

bool target_matches(std::string_view target, std::string_view module, Role role) {
  if (is_special_target(target)) return false;
  if (target == kTargetLinear) return role != Role::router;
  for (const Role named : {Role::attention, Role::mlp, Role::lm_head}) {
    if (target == role_name(named)) return role == named;
  }
  return role != Role::router && glob_match(target, module);
}

/// How vector operations are rounded, which the last "vector" clause decides.
Arithmetic arithmetic_of(const Variant& variant) {
  const auto last = std::find_if(variant.clauses.rbegin(), variant.clauses.rend(),
                                 [](const Clause& clause) { return clause.target == kTargetVector; });
  return last != variant.clauses.rend() ? last->spec.arithmetic : Arithmetic::model_dtype;
}

}  // namespace

ResolvedVariant resolve(std::span<const NamedLinear> linears, const Variant& variant) {
  ResolvedVariant out;
  out.arithmetic = arithmetic_of(variant);
  const auto add_spec = [&out](ProductSpec spec) {
    spec.arithmetic = out.arithmetic;
    const auto known = std::find(out.specs.begin(), out.specs.end(), spec);
    const auto index = static_cast<uint32_t>(known - out.specs.begin());
    if (known == out.specs.end()) out.specs.push_back(spec);
    return index;
  };
  out.spec_of.assign(linears.size(), add_spec({}));
  for (size_t c = 0; c < variant.clauses.size(); ++c) {
    const auto& [target, spec] = variant.clauses[c];
    if (is_special_target(target)) {
      if (target == kTargetQk) out.qk = spec;
      if (target == kTargetPv) out.pv = spec;
      continue;
    }
    const uint32_t index = add_spec(spec);
    ProductSpec without_outputs = spec;
    without_outputs.outputs.reset();
    const uint32_t head_index = add_spec(without_outputs);
    bool matched = false;
    for (size_t l = 0; l < linears.size(); ++l) {
      if (!target_matches(target, linears[l].module, linears[l].role)) continue;
      out.spec_of[l] = linears[l].role == Role::lm_head ? head_index : index;
      matched = true;
    }
    if (!matched) out.unmatched.push_back(c);
  }
  return out;
}

void require_matches(std::span<const NamedLinear> linears, const Variant& variant, const ResolvedVariant& resolved) {
  if (resolved.unmatched.empty()) return;
  fail_unmatched(variant, variant.clauses[resolved.unmatched.front()].target, linears);
}

std::vector<NamedLinear> named_linears(const ModelSpec& model) {
  std::vector<NamedLinear> out;
  for (const LinearSpec* linear : model.linears()) out.push_back({.module = linear->module, .role = linear->role});
  return out;
}

std::vector<ResolvedVariant> resolve(const ModelSpec& model, std::span<const Variant> variants) {
  const std::vector<NamedLinear> linears = named_linears(model);
  std::vector<ResolvedVariant> out;
  out.reserve(variants.size());
  for (const Variant& variant : variants) {
    out.push_back(resolve(linears, variant));
    require_matches(linears, variant, out.back());
  }
  return out;
}

ResolvedVariant resolve(const ModelSpec& model, const Variant& variant) {
  return std::move(resolve(model, std::span(&variant, 1)).front());
}

}  // namespace mxlm
