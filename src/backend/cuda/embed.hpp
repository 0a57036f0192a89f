#pragma once

#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// out[r] = table[tokens[r]] (of any type) in out's type, * multiplier, rounded (unless that is 1), then +
/// positions[places[r]], rounded (unless `places` is null). Row numbers are on the device.
void embed_rows(const View& table, const int32_t* tokens, float multiplier, const View& positions,
                const int32_t* places, const View& out, cudaStream_t stream);

}  // namespace mxlm::cuda
