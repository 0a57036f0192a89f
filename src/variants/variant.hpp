#pragma once

// Variants and their grammar, which docs/guide.md describes.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"

namespace mxlm {

// Targets that are words of the grammar, besides the names of roles.
inline constexpr std::string_view kTargetQk = "qk", kTargetPv = "pv", kTargetLinear = "linear",
                                  kTargetVector = "vector";

/// True for a target that does not stand for Linears.
inline bool is_special_target(std::string_view target) {
  return target == kTargetQk || target == kTargetPv || target == kTargetVector;
}

/// One clause of a variant: its target names products, and its spec gives their formats.
struct Clause {
  std::string target;  // "mlp" "attention" "lm_head" "linear" "qk" "pv" "vector" or a glob over module names
  ProductSpec spec;
};

/// A list of clauses that gives formats to a model's products. A spec is WEIGHTS/ACTIVATIONS,
/// WEIGHTS/ACTIVATIONS/OUTPUTS, or WEIGHTS, which stands for activations, too. Keys on the last operand are the
/// defaults for earlier operands that accept them.
struct Variant {
  std::string name;  // the given NAME, or else the canonical text
  std::vector<Clause> clauses;

  /// Parses a variant. Throws UsageError with the place of the mistake and what is possible there.
  static Variant parse(std::string_view text);
  /// The model as its checkpoint holds it.
  static Variant baseline() { return {.name = "baseline", .clauses = {}}; }
  /// As `parse`, for lists in which "" stands for the baseline.
  static Variant parse_or_baseline(std::string_view text) { return text.empty() ? baseline() : parse(text); }
  /// The canonical text, without NAME. It parses to a variant with the same canonical text.
  [[nodiscard]] std::string canonical() const;
  /// The canonical text, after NAME if a name was given. It parses to this variant.
  [[nodiscard]] std::string text() const;
  /// The variant with outputs quantised, too. The outputs of every replaced Linear get the format of its activations,
  /// or of its weights if its activations are not quantised. The LM head is left out, because its outputs are the
  /// logits. A name that is the canonical text is made anew. Throws UsageError for a format that needs the whole tensor
  /// for its scale.
  [[nodiscard]] Variant with_quantized_outputs() const;
};

/// A Linear of a model: its role and its module name (without ".weight"). The name is borrowed.
struct NamedLinear {
  std::string_view module;
  Role role = Role::mlp;
};

/// Throws UsageError for a target that matches none of these Linears. The message lists the possible targets.
[[noreturn]] void fail_unmatched(const Variant& variant, std::string_view target, std::span<const NamedLinear> linears);

/// The canonical text of one side ("mxfp4_e2m1@block=16", "none") or of a product ("mxfp4_e2m1/none", "mxfp8_e4m3").
std::string to_text(const OperandSpec& spec);
std::string to_text(const ProductSpec& spec);
/// Parses the format of one operand with its keys, such as "mxfp4@rule=rceil", for `cast --format`. Throws UsageError.
mx::Format parse_block_format(std::string_view text);

}  // namespace mxlm
