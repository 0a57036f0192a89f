#pragma once

// What results say about the machine and the devices of a run.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mxlm {

/// A GPU that a run used.
struct DeviceInfo {
  std::string name;
  int index = 0;
  std::string architecture;  // "sm_90"
  uint64_t memory_bytes = 0;
  std::string driver;  // version, "" if unknown
};

struct MachineInfo {
  std::string cpu, backend, os;
  int cores = 0, threads = 0;
  uint64_t memory_bytes = 0;
  std::vector<DeviceInfo> devices = {};  // empty for the CPU
};

/// What a run took of a GPU: memory, energy and shards.
struct DeviceUse {
  int index = 0;
  std::string name;
  uint64_t peak_memory_bytes = 0;       // of this run's workers; 0 = not measured
  std::optional<double> energy_joules;  // of the whole device, during the shards
  int64_t rounds = 0;
};

}  // namespace mxlm
