#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"

namespace mxlm {

// Targets that are words of the grammar, beside the roles' names.
inline constexpr std::string_view kTargetQk = "qk", kTargetPv = "pv", kTargetLinear = "linear",
                                  kTargetVector = "vector";

/// True for a target that stands for no Linear.
inline bool is_special_target(std::string_view target) {
  return target == kTargetQk || target == kTargetPv || target == kTargetVector;
}

/// One clause of a variant: which products, and in what.
struct Clause {
  std::string target;  // "mlp" "attention" "lm_head" "linear" "qk" "pv" "vector" or a glob over module names
  ProductSpec spec;
};

/// A policy of formats for a model's products, parsed from the grammar in docs/guide.md. A spec is WEIGHTS, standing
/// for activations too, WEIGHTS/ACTIVATIONS or WEIGHTS/ACTIVATIONS/OUTPUTS; each key of the last one holds for those
/// before it too unless they set that key themselves or have no use for it.
struct Variant {
  std::string name;  // given NAME, or the canonical text
  std::vector<Clause> clauses;

  /// Throws UsageError with the place and what is possible there.
  static Variant parse(std::string_view text);
  /// The one canonical form, without NAME; parses to itself.
  [[nodiscard]] std::string canonical() const;
  /// The canonical form with NAME, where a name is given: parses to this variant.
  [[nodiscard]] std::string text() const;
  /// The variant with the outputs of every replaced Linear quantised as its activations are, or as its weights where
  /// activations are not; but the LM head's, which are the logits. A name that is the canonical text follows it. Throws
  /// UsageError for formats whose scale depends on a whole tensor.
  [[nodiscard]] Variant with_quantized_outputs() const;
};

/// A Linear of a model: its module name (without ".weight"), which is borrowed, and role.
struct NamedLinear {
  std::string_view module;
  Role role = Role::mlp;
};

/// Throws the UsageError of a target that matches none of these Linears, listing what there is.
[[noreturn]] void fail_unmatched(const Variant& variant, std::string_view target, std::span<const NamedLinear> linears);

/// Canonical text of a side ("mxfp4_e2m1@block=16", "none") and of all ("mxfp4_e2m1/none", "mxfp8_e4m3").
std::string to_text(const OperandSpec& spec);
std::string to_text(const ProductSpec& spec);
/// One operand with its keys, for `cast --format`: "mxfp4@rule=rceil". Throws UsageError.
mx::Format parse_block_format(std::string_view text);

}  // namespace mxlm
