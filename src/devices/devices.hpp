#pragma once

// Which devices a run uses.

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

/// What --device says.
struct DeviceRequest {
  enum class Kind : uint8_t { automatic, cpu, cuda } kind = Kind::automatic;
  std::vector<int> indices;  // of `cuda:0,2`; empty = all
  /// Throws UsageError.
  static DeviceRequest parse(std::string_view text);
};

/// How the GPUs of the request are used.
struct DeviceOptions {
  DeviceRequest request = {};
  double min_free_ratio = 0;  // of a GPU's memory, for it to be used without being named
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
  /// The place in `gpus` of a worker's device: the first worker of each comes before the second of any.
  [[nodiscard]] size_t device_of(size_t worker) const { return on_cpu() ? 0 : worker % gpus.size(); }
  /// Device memory that a worker may use, the least of all devices; 0 on the CPU.
  [[nodiscard]] uint64_t worker_limit() const;
  /// A worker's backend, to be used by the thread that makes it. `reversed`: sums of products in another order.
  [[nodiscard]] std::unique_ptr<Backend> make_backend(size_t worker, bool reversed = false) const;
};

/// Picks from what there is. `automatic` takes GPUs where they can be used, else the CPU and says why. GPUs that are
/// left out are named in the log. Throws Error where the request cannot be met.
DeviceSet choose_devices(const DeviceOptions& options, const CudaDevices& found, int threads);
/// The same from this machine's; does not look for GPUs where the CPU is asked for.
DeviceSet choose_devices(const DeviceOptions& options, int threads);

/// What digits depend on of a backend: with another, they differ.
struct BackendKind {
  std::string description;  // Backend::description
  std::string libraries;    // that a GPU's products come from, "" for the CPU
  [[nodiscard]] std::string text() const { return libraries.empty() ? description : description + ", " + libraries; }
  friend bool operator==(const BackendKind&, const BackendKind&) = default;
};
BackendKind backend_kind(const DeviceSet& devices);

/// One rank's part of what `devices` finds on its host: GPUs that are not named are dealt out among the host's ranks,
/// and threads that are not counted are its share of the processors. Throws Error if there are more ranks than GPUs.
DeviceSet share_devices(DeviceSet devices, const DeviceRequest& request, const Ranks& ranks);

/// This machine and the backend that a run on these devices uses.
MachineInfo machine_info(const DeviceSet& devices);

/// Watches the devices of a run from its construction on.
class DeviceMonitor {
 public:
  /// `devices` is borrowed.
  explicit DeviceMonitor(const DeviceSet& devices);
  /// Gives the progress of GPUs their indices and, twice a second, new figures.
  void annotate(Progress& progress);
  /// What the run cost each device so far, with what its workers report.
  [[nodiscard]] std::vector<DeviceUse> use(const std::vector<WorkerReport>& workers) const;

 private:
  const DeviceSet& devices_;
  Nvml nvml_;
  std::vector<std::optional<double>> energy_;  // at the start
  std::vector<GpuSample> samples_;
  std::chrono::steady_clock::time_point sampled_;
};

}  // namespace mxlm
