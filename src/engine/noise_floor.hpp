#pragma once

// What rounding alone does to the baseline's KL divergence.

#include <span>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

/// KL(baseline || baseline with sums in the other order), the mean over the scored tokens of windows spread over the
/// run's, up to about 8192 tokens. The head's own sums, in float32, are those of `backend` for both. Throws
/// Interrupted, Error.
double measure_floor(const ModelSpec& model, Backend& backend, Backend& reversed, DType compute,
                     std::span<const Window> windows, ScoreKind kind);

}  // namespace mxlm
