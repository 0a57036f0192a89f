#include "devices/devices.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "backend/cpu/backend.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "base/memory.hpp"
#include "base/parallel.hpp"
#include "base/quote.hpp"
#include "base/system.hpp"

namespace mxlm {
namespace {

constexpr auto kSampleEvery = std::chrono::milliseconds(500);

std::string shown(const CudaDevice& device) { return fmt::format("cuda:{} ({})", device.index, device.name); }

/// Why `automatic` and `cuda` leave a GPU out, or "" if they take it.
std::string reason_against(const CudaDevice& device, double min_free_ratio) {
  if (!device.supported) return fmt::format("this build has no code for {}", device.architecture);
  const double ratio =
      device.memory_bytes == 0 ? 0 : static_cast<double>(device.free_bytes) / static_cast<double>(device.memory_bytes);
  if (ratio < min_free_ratio) {
    return fmt::format("{:.0f}% of its memory is free, --min-free-ratio asks for {:.0f}%", 100 * ratio,
                       100 * min_free_ratio);
  }
  return "";
}

std::vector<CudaDevice> named_devices(const std::vector<int>& indices, const CudaDevices& found) {
  std::vector<CudaDevice> out;
  for (const int index : indices) {
    const auto device = std::find_if(found.devices.begin(), found.devices.end(),
                                     [index](const CudaDevice& d) { return d.index == index; });
    if (device == found.devices.end()) {
      fail("There is no GPU cuda:{}; this machine has {}.", index,
           found.devices.size() == 1 ? "cuda:0 only" : fmt::format("cuda:0 to cuda:{}", found.devices.size() - 1));
    }
    if (!device->supported) {
      fail("{} cannot be used: {}; build mxlm for it (CMAKE_CUDA_ARCHITECTURES) or name another device.",
           shown(*device), reason_against(*device, 0));
    }
    out.push_back(*device);
  }
  return out;
}

}  // namespace

DeviceRequest DeviceRequest::parse(std::string_view text) {
  constexpr std::string_view kList = "cuda:";
  if (text == "auto") return {.kind = Kind::automatic, .indices = {}};
  if (text == "cpu") return {.kind = Kind::cpu, .indices = {}};
  if (text == "cuda") return {.kind = Kind::cuda, .indices = {}};
  DeviceRequest out{.kind = Kind::cuda, .indices = {}};
  if (!text.starts_with(kList)) {
    fail_usage("--device {} is not known; use auto, cpu, cuda, or cuda:0,2 for some of the GPUs.", quote(text));
  }
  const char* at = text.data() + kList.size();
  const char* const end = text.data() + text.size();
  while (true) {
    int index = 0;
    const auto [next, error] = std::from_chars(at, end, index);
    if (error != std::errc() || index < 0 || (next != end && *next != ',')) {
      fail_usage("--device {} does not end with the numbers of GPUs; write it like cuda:0,2.", quote(text));
    }
    if (std::find(out.indices.begin(), out.indices.end(), index) != out.indices.end()) {
      fail_usage("--device {} names a GPU twice; --workers-per-device puts several workers on one GPU.", quote(text));
    }
    out.indices.push_back(index);
    if (next == end) return out;
    at = next + 1;
  }
}

uint64_t DeviceSet::worker_limit() const {
  if (on_cpu()) return 0;
  uint64_t least = UINT64_MAX;
  for (const CudaDevice& gpu : gpus) least = std::min(least, gpu.usable_bytes());
  return least / static_cast<uint64_t>(workers_per_device);
}

std::unique_ptr<Backend> DeviceSet::make_backend(size_t worker, bool reversed) const {
  if (on_cpu()) {
    return make_cpu_backend(
        {.threads = threads, .isa = std::nullopt, .order = reversed ? cpu::Order::reversed : cpu::Order::forward});
  }
  const CudaDevice& gpu = gpus[device_of(worker)];
  return make_cuda_backend({.device = gpu.index,
                            .route = gemm,
                            .reversed = reversed,
                            .memory_limit = gpu.usable_bytes() / static_cast<uint64_t>(workers_per_device)});
}

DeviceSet choose_devices(const DeviceOptions& options, const CudaDevices& found, int threads) {
  using Kind = DeviceRequest::Kind;
  const DeviceRequest& request = options.request;
  DeviceSet out{.gpus = {}, .workers_per_device = options.workers_per_device, .gemm = options.gemm, .threads = threads};
  std::string reason = found.reason;
  if (request.kind == Kind::cuda && found.devices.empty()) {
    fail("There is no GPU for --device cuda: {}; use --device cpu.", reason);
  }
  if (!request.indices.empty()) {
    out.gpus = named_devices(request.indices, found);
  } else if (request.kind != Kind::cpu) {
    std::vector<std::string> left_out;
    for (const CudaDevice& device : found.devices) {
      if (std::string against = reason_against(device, options.min_free_ratio); against.empty()) {
        out.gpus.push_back(device);
      } else {
        left_out.push_back(fmt::format("{}: {}", shown(device), against));
      }
    }
    if (out.gpus.empty() && !found.devices.empty()) {
      reason = fmt::format("no GPU can be used ({})", fmt::join(left_out, "; "));
      if (request.kind == Kind::cuda) fail("For --device cuda {}; free one, or use --device cpu.", reason);
    } else {
      for (const std::string& device : left_out) log_warn("GPU left out: {}", device);
    }
  }
  if (!out.on_cpu()) return out;
  if (options.gemm == GemmRoute::fast) {
    fail("The CPU has the exact products only{}; use --gemm exact.",
         request.kind == Kind::cpu ? "" : fmt::format(", and {}", reason));
  }
  if (request.kind == Kind::automatic) log_info("computing on the CPU: {}", reason);
  return out;
}

DeviceSet choose_devices(const DeviceOptions& options, int threads) {
  const bool cpu = options.request.kind == DeviceRequest::Kind::cpu;
  return choose_devices(options, cpu ? CudaDevices{} : find_cuda_devices(), threads);
}

BackendKind backend_kind(const DeviceSet& devices) {
  DeviceSet one = devices;
  one.threads = 1;
  return {.description = one.make_backend(0)->description(), .libraries = one.on_cpu() ? "" : cuda_libraries()};
}

DeviceSet share_devices(DeviceSet devices, const DeviceRequest& request, const Ranks& ranks) {
  if (!devices.on_cpu() && request.indices.empty()) {
    const auto number = static_cast<size_t>(ranks.number_here()), all = static_cast<size_t>(ranks.ranks_here());
    if (devices.gpus.size() < all) {
      fail("{} has {} GPU{} for {} ranks; start at most one rank per GPU, or name the GPUs with --device cuda:...",
           ranks.host(), devices.gpus.size(), devices.gpus.size() == 1 ? "" : "s", all);
    }
    std::vector<CudaDevice> own;
    for (size_t i = number; i < devices.gpus.size(); i += all) own.push_back(devices.gpus[i]);
    devices.gpus = std::move(own);
  }
  if (devices.threads == 0) {
    const double share = ranks.processor_share() * default_thread_count();
    devices.threads = std::max(1, static_cast<int>(std::lround(share)));
  }
  return devices;
}

MachineInfo machine_info(const DeviceSet& devices) {
  MachineInfo info;
  info.cpu = cpu_name();
  info.os = os_name();
  info.cores = default_thread_count();
  info.threads = devices.threads > 0 ? devices.threads : info.cores;
  info.memory_bytes = memory_limit_bytes();
  info.backend = backend_kind(devices).description;
  if (devices.on_cpu()) return info;
  const std::string driver = Nvml().driver();
  for (const CudaDevice& gpu : devices.gpus) {
    info.devices.push_back({.name = gpu.name,
                            .index = gpu.index,
                            .architecture = gpu.architecture,
                            .memory_bytes = gpu.memory_bytes,
                            .driver = driver});
  }
  return info;
}

DeviceMonitor::DeviceMonitor(const DeviceSet& devices)
    : devices_(devices), samples_(devices.gpus.size()), sampled_(std::chrono::steady_clock::now() - kSampleEvery) {
  for (const CudaDevice& gpu : devices.gpus) energy_.push_back(nvml_.energy_joules(gpu.bus_id));
}

void DeviceMonitor::annotate(Progress& progress) {
  if (devices_.on_cpu()) {
    progress.devices.clear();
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - sampled_ >= kSampleEvery) {
    for (size_t i = 0; i < samples_.size(); ++i) samples_[i] = nvml_.sample(devices_.gpus[i].bus_id);
    sampled_ = now;
  }
  progress.devices.resize(devices_.gpus.size());
  for (size_t i = 0; i < samples_.size(); ++i) {
    progress.devices[i].index = devices_.gpus[i].index;
    progress.devices[i].memory_bytes = devices_.gpus[i].memory_bytes;
    progress.devices[i].sample = samples_[i];
  }
}

std::vector<DeviceUse> DeviceMonitor::use(const std::vector<WorkerReport>& workers) const {
  std::vector<DeviceUse> out;
  for (size_t i = 0; i < devices_.gpus.size(); ++i) {
    const CudaDevice& gpu = devices_.gpus[i];
    DeviceUse& use = out.emplace_back();
    use.index = gpu.index;
    use.name = gpu.name;
    for (const WorkerReport& worker : workers) {
      if (worker.device != i) continue;
      use.peak_memory_bytes += worker.memory.peak;
      use.rounds += static_cast<int64_t>(worker.rounds);
    }
    const auto now = nvml_.energy_joules(gpu.bus_id);
    if (now && energy_[i]) use.energy_joules = *now - *energy_[i];
  }
  return out;
}

}  // namespace mxlm
