#pragma once

#include <functional>

#include "cluster/ranks.hpp"
#include "devices/devices.hpp"

namespace mxlm {

/// What a rank other than 0 does all its life: loads the models that rank 0 names, and runs rounds that it hands out on
/// the devices that `choose` gives (or throws the Error that rank 0 is to tell). Returns the exit code, once rank 0
/// ends.
int follow(Ranks& ranks, const std::function<DeviceSet()>& choose);

}  // namespace mxlm
