#pragma once

// Variants of a study: a grid of formats, block sizes, scale bits, rules, roundings and targets, or one Linear, role or
// layer at a time. They run as the variants of one evaluation, so they share the reading of the model, the baseline and
// every step until they differ.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/spec.hpp"
#include "variants/sweep_point.hpp"
#include "variants/variant.hpp"

namespace mxlm {

/// What a sweep varies, each axis as it was typed; an empty axis holds its default alone. A format with a stage on
/// either side takes no keys: it is one variant for each entry of `roles`.
struct SweepAxes {
  /// "mxfp4", or weights/activations "mxfp4/mxfp8"; default: the table's element formats.
  std::vector<std::string> formats = {};
  std::vector<int> blocks = {}, scale_bits = {};        // defaults 32 and 8
  std::vector<std::string> rules = {}, roundings = {};  // defaults floor and even
  std::vector<std::string> roles = {};                  // targets joined by commas; default "attention,mlp"
  bool weights_only = false;                            // every format as FORMAT/none
  int64_t max_variants = 256;
};

enum class Sensitivity : uint8_t { linear, role, layer };

/// "linear", "role", "layer"; throws UsageError.
Sensitivity parse_sensitivity(const std::string& text);

struct SweepVariant {
  Variant variant;
  SweepPoint point;
};

/// The grid, first axis outermost, without what is the same variant as one before. Throws UsageError: an axis value
/// that the variant grammar does not take, or more than max_variants variants.
std::vector<SweepVariant> grid_variants(const SweepAxes& axes);

/// For each combination of the axes but `roles`: one variant for each Linear, role or layer of the model that the union
/// of `roles` names, in forward order. Throws UsageError as grid_variants does, and for a target that matches nothing.
std::vector<SweepVariant> sensitivity_variants(const SweepAxes& axes, Sensitivity unit, const ModelSpec& model);

/// The name of the layer that a module belongs to: up to and with its first number ("model.layers.3"), or the module's
/// own name where it has none.
std::string layer_of(std::string_view module);

}  // namespace mxlm
