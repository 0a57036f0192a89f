#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "run/results.hpp"

namespace mxlm {

/// [{"tensor", "role", "weight": H, "activation": H or null}] with H = {"first", "counts", "zeros", "nonfinite"}:
/// counts[i] values have floor(log2 |x|) = first + i.
nlohmann::ordered_json exponents_json(std::span<const LinearExponents> linears);

/// Histograms of the weights as text: bars for each role, a line for each Linear; fits 80 columns.
std::string render_exponents(std::span<const LinearExponents> linears);

}  // namespace mxlm
