#pragma once

// The floor: the KL divergence that rounding alone causes in the baseline.

#include <span>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

/// KL(baseline || baseline with sums in the other order): the mean over the scored tokens of some windows, which are
/// spread evenly over the run and have up to about 8192 tokens. `backend` computes the LM head for both orders, so the
/// float32 sums of the LM head do not differ. Throws Interrupted and Error.
double measure_floor(const ModelSpec& model, Backend& backend, Backend& reversed, DType compute,
                     std::span<const Window> windows, ScoreKind kind);

}  // namespace mxlm
