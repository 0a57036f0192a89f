#pragma once

// How far a run has come.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/nvml/nvml.hpp"

namespace mxlm {

/// The part of one device in the work done so far.
struct DeviceProgress {
  double done = 0;
  int index = 0;  // of a GPU, as the driver counts
  uint64_t memory_bytes = 0;
  GpuSample sample;
};

/// Work done so far, in positions x variants through the whole model.
struct Progress {
  double done = 0, total = 0;
  double seconds = 0;
  size_t round = 0, rounds = 0;  // finished, in all
  std::vector<DeviceProgress> devices;
};

}  // namespace mxlm
