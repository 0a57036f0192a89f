#pragma once

// The part of `mxlm bench` that measures GPUs.

#include <nlohmann/json.hpp>
#include <string>

namespace mxlm::cli {

/// Measures each GPU: the bandwidth of a copy, products with the shapes of an 8B model, and the speed of quantising
/// activations. Returns the text and adds the figures to `json` under "gpus". Without a GPU the text says why.
std::string bench_gpus(nlohmann::ordered_json& json);

}  // namespace mxlm::cli
