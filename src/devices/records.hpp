#pragma once

// What a run says of its machine and its devices.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mxlm {

/// A GPU that was used.
struct DeviceInfo {
  std::string name;
  int index = 0;
  std::string architecture;  // "sm_90"
  uint64_t memory_bytes = 0;
  std::string driver;  // its version, "" if unknown
};

struct MachineInfo {
  std::string cpu, backend, os;
  int cores = 0, threads = 0;
  uint64_t memory_bytes = 0;
  std::vector<DeviceInfo> devices = {};  // empty for the CPU
};

/// What a run took of a GPU.
struct DeviceUse {
  int index = 0;
  std::string name;
  uint64_t peak_memory_bytes = 0;       // of our workers; 0 = not measured
  std::optional<double> energy_joules;  // of the whole device while the rounds ran
  int64_t rounds = 0;
};

}  // namespace mxlm
