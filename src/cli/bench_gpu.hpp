#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace mxlm::cli {

/// The part of `mxlm bench` on GPUs: of each the bandwidth of a copy, products of the shapes of an 8B model and how
/// fast activations are quantised, as text and under "gpus" in `json`; or a line that says why there is none.
std::string bench_gpus(nlohmann::ordered_json& json);

}  // namespace mxlm::cli
