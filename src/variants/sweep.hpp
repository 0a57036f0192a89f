#pragma once

// The variants of `mxlm sweep`: a grid of formats, block sizes, scale bits, scale rules, roundings and targets, or a
// sensitivity scan. They run as the variants of one evaluation, so they share the reading of the model, the baseline
// and every step until they differ.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/spec.hpp"
#include "variants/sweep_point.hpp"
#include "variants/variant.hpp"

namespace mxlm {

/// What a sweep varies, each axis as the user typed it. An empty axis has only its default. A format with a reference
/// format on either side takes no keys, so it gives one variant for each entry of `roles`.
struct SweepAxes {
  /// "mxfp4", or weights/activations "mxfp4/mxfp8"; default: the table's element formats.
  std::vector<std::string> formats = {};
  std::vector<int> blocks = {}, scale_bits = {};        // defaults 32 and 8
  std::vector<std::string> rules = {}, roundings = {};  // defaults floor and even
  std::vector<std::string> roles = {};                  // targets joined by commas; default "attention,mlp"
  bool weights_only = false;                            // write every format as FORMAT/none
  int64_t max_variants = 256;
};

enum class Sensitivity : uint8_t { linear, role, layer };

/// Reads "linear", "role" or "layer". Throws UsageError for other words.
Sensitivity parse_sensitivity(const std::string& text);

/// A variant of a sweep with its place in the sweep.
struct SweepVariant {
  Variant variant;
  SweepPoint point;
};

/// The variants of a grid, with the first axis outermost. A variant that equals an earlier variant is left out. Throws
/// UsageError for a value that the variant grammar does not take, and for more than max_variants variants.
std::vector<SweepVariant> grid_variants(const SweepAxes& axes);

/// The variants of a sensitivity scan. For each combination of the axes other than `roles`, there is one variant for
/// each Linear, role or layer that the union of `roles` names, in forward order. Throws UsageError as grid_variants
/// does, and for a target that matches nothing.
std::vector<SweepVariant> sensitivity_variants(const SweepAxes& axes, Sensitivity unit, const ModelSpec& model);

/// The name of the layer of a module: the module's name up to its first number ("model.layers.3"), or the whole name if
/// it has no number.
std::string layer_of(std::string_view module);

}  // namespace mxlm
