#pragma once

// What NVIDIA's management library (libnvidia-ml, a part of the driver) measures of a GPU while it works. The library
// is opened at run time, so building needs nothing; without the library there are no figures.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace mxlm {

/// The state of a GPU at a moment; a value is empty if the library or the device does not report it.
struct GpuSample {
  std::optional<int> utilization;       // percent of the last moments in which a kernel ran
  std::optional<uint64_t> memory_used;  // bytes, of all processes
  std::optional<int> temperature;       // degrees Celsius
  std::optional<double> power;          // watts
  std::optional<int> sm_clock;          // MHz
  std::optional<double> energy_joules;  // since the driver was loaded
};

class Nvml {
 public:
  /// Opens `library`; figures are empty if it does not exist.
  explicit Nvml(const char* library = "libnvidia-ml.so.1");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  /// The driver's version, "" if unknown.
  [[nodiscard]] std::string driver() const;
  /// `bus_id` has the form "0000:3b:00.0".
  [[nodiscard]] GpuSample sample(const std::string& bus_id) const;
  /// sample().energy_joules alone.
  [[nodiscard]] std::optional<double> energy_joules(const std::string& bus_id) const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;  // null if it does not exist
};

}  // namespace mxlm
