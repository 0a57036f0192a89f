#pragma once

// The main loop of the ranks that rank 0 leads.

#include <functional>

#include "cluster/ranks.hpp"
#include "devices/devices.hpp"

namespace mxlm {

/// Serves rank 0 until it ends: loads the models that rank 0 names, and computes the shards that rank 0 gives, on the
/// devices that `choose` returns. Errors are sent to rank 0, which reports them; `choose` may throw an Error too.
/// Returns the exit code.
int follow(Ranks& ranks, const std::function<DeviceSet()>& choose);

}  // namespace mxlm
