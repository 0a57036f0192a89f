#pragma once

// Chooses the devices of a run, makes the backends of its workers, and observes what the devices do.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cuda/backend.hpp"
#include "backend/nvml/nvml.hpp"
#include "cluster/ranks.hpp"
#include "devices/records.hpp"
#include "engine/round.hpp"
#include "rounds/progress.hpp"

namespace mxlm {

/// The value of --device.
struct DeviceRequest {
  enum class Kind : uint8_t { automatic, cpu, cuda } kind = Kind::automatic;
  std::vector<int> indices;  // of `cuda:0,2`; empty = all
  /// Throws UsageError.
  static DeviceRequest parse(std::string_view text);
};

/// The request, and how its GPUs are used.
struct DeviceOptions {
  DeviceRequest request = {};
  double min_free_ratio = 0;  // a GPU that is not named needs this share of its memory free
  int workers_per_device = 1;
  GemmRoute gemm = GemmRoute::exact;
};

/// The devices of a run and the workers on them: the CPU with one worker, or GPUs.
struct DeviceSet {
  std::vector<CudaDevice> gpus;  // empty = the CPU
  int workers_per_device = 1;
  GemmRoute gemm = GemmRoute::exact;
  int threads = 0;  // of the CPU; 0 = all

  [[nodiscard]] bool on_cpu() const { return gpus.empty(); }
  [[nodiscard]] size_t workers() const { return on_cpu() ? 1 : gpus.size() * static_cast<size_t>(workers_per_device); }
  /// The index into `gpus` of a worker's device. Every device gets its first worker before any device gets a second.
  [[nodiscard]] size_t device_of(size_t worker) const { return on_cpu() ? 0 : worker % gpus.size(); }
  /// The device memory that a worker may use on the smallest of the devices; 0 on the CPU.
  [[nodiscard]] uint64_t worker_limit() const;
  /// Makes a worker's backend; only the calling thread may use it. `reversed` adds the terms of products in another
  /// order.
  [[nodiscard]] std::unique_ptr<Backend> make_backend(size_t worker, bool reversed = false) const;
};

/// Chooses among the devices that were found. `automatic` takes all usable GPUs; without a usable GPU it takes the CPU
/// and logs why. The log names the GPUs that are left out. Throws Error if the request cannot be met.
DeviceSet choose_devices(const DeviceOptions& options, const CudaDevices& found, int threads);
/// The same for the devices of this machine. Does not look for GPUs if the request is for the CPU.
DeviceSet choose_devices(const DeviceOptions& options, int threads);

/// The properties of a backend that digits depend on.
struct BackendKind {
  std::string description;  // Backend::description
  std::string libraries;    // of a GPU's products, "" for the CPU
  [[nodiscard]] std::string text() const { return libraries.empty() ? description : description + ", " + libraries; }
  friend bool operator==(const BackendKind&, const BackendKind&) = default;
};
BackendKind backend_kind(const DeviceSet& devices);

/// The part of a host's devices that belongs to one rank. GPUs that the request does not name are shared out among the
/// ranks of the host. If no number of threads is given, the rank gets its share of the processors. Throws Error if the
/// host has more ranks than GPUs.
DeviceSet share_devices(DeviceSet devices, const DeviceRequest& request, const Ranks& ranks);

/// Describes this machine, and the backend of a run on these devices.
MachineInfo machine_info(const DeviceSet& devices);

/// Observes the devices of a run, from construction on.
class DeviceMonitor {
 public:
  /// Borrows `devices`.
  explicit DeviceMonitor(const DeviceSet& devices);
  /// Fills in the indices, memory and utilisation of the GPUs; reads new figures twice a second.
  void annotate(Progress& progress);
  /// What the run has taken of each GPU so far; memory and shards come from the reports of the workers.
  [[nodiscard]] std::vector<DeviceUse> use(const std::vector<WorkerReport>& workers) const;

 private:
  const DeviceSet& devices_;
  Nvml nvml_;
  std::vector<std::optional<double>> energy_;  // counters at the start, in joules
  std::vector<GpuSample> samples_;
  std::chrono::steady_clock::time_point sampled_;
};

}  // namespace mxlm
