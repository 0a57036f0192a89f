#pragma once

#include <cstdint>

#include "backend/backend.hpp"
#include "engine/plan.hpp"

namespace mxlm {

/// What a device was measured to do.
struct DeviceRates {
  double bytes_per_second = 0;  // of weights from the host's memory, prepared on arrival
  double flops_per_second = 0;  // of BF16 products
};

/// Times a weight of `bytes` on its way and a product of three dimensions of `size`, by the backend's marks.
DeviceRates measure_rates(Backend& backend, int64_t size = 8192, uint64_t bytes = uint64_t{256} << 20);

/// Tokens that a round of this plan needs for bringing all weights to take no longer than computing with them.
int64_t tokens_to_hide_transfer(const Plan& plan, const DeviceRates& rates);

}  // namespace mxlm
