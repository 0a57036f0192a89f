#pragma once

// The progress of a run, as the progress line and callers of the library see it.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/nvml/nvml.hpp"

namespace mxlm {

/// The share of one device in the finished work.
struct DeviceProgress {
  double done = 0;
  int index = 0;  // of a GPU, in the numbering of the driver
  uint64_t memory_bytes = 0;
  GpuSample sample;
};

/// The finished work, in positions times variants through the whole model.
struct Progress {
  double done = 0, total = 0;
  double seconds = 0;
  size_t round = 0, rounds = 0;  // finished shards, and all shards
  std::vector<DeviceProgress> devices;
};

}  // namespace mxlm
