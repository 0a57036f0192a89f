#pragma once

// The measured speed of a device, from which a streaming run chooses the size of its shards.

#include <cstdint>

#include "backend/backend.hpp"
#include "engine/plan.hpp"

namespace mxlm {

/// The measured rates of a device.
struct DeviceRates {
  double bytes_per_second = 0;  // of weights, from host memory to a prepared weight
  double flops_per_second = 0;  // of BF16 products
};

/// Times the transfer of a weight of `bytes`, and a product whose three dimensions are `size`, with the backend's
/// marks.
DeviceRates measure_rates(Backend& backend, int64_t size = 8192, uint64_t bytes = uint64_t{256} << 20);

/// The number of tokens of a shard of this plan from which on the products take at least as long as the transfer of all
/// weights.
int64_t tokens_to_hide_transfer(const Plan& plan, const DeviceRates& rates);

}  // namespace mxlm
