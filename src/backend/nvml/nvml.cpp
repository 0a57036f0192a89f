#include "backend/nvml/nvml.hpp"

#include <dlfcn.h>

#include <array>

namespace mxlm {
namespace {

// The parts of nvml.h that this file uses. The interface is stable across drivers.
using Status = int;  // 0 = success
using Device = struct Opaque*;
struct Utilization {
  unsigned int gpu, memory;
};
struct Memory {
  unsigned long long total, free, used;
};
constexpr int kTemperatureOfGpu = 0;
constexpr int kClockOfSms = 1;

}  // namespace

struct Nvml::Library {
  void* handle = nullptr;
  bool started = false;

  Status (*init)() = nullptr;
  Status (*shutdown)() = nullptr;
  Status (*driver_version)(char*, unsigned int) = nullptr;
  Status (*device_by_bus_id)(const char*, Device*) = nullptr;
  Status (*utilization)(Device, Utilization*) = nullptr;
  Status (*memory)(Device, Memory*) = nullptr;
  Status (*temperature)(Device, int, unsigned int*) = nullptr;
  Status (*power)(Device, unsigned int*) = nullptr;
  Status (*clock)(Device, int, unsigned int*) = nullptr;
  Status (*energy)(Device, unsigned long long*) = nullptr;

  explicit Library(const char* name) : handle(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
    if (handle == nullptr) return;
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(driver_version, "nvmlSystemGetDriverVersion");
    find(device_by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2");
    find(utilization, "nvmlDeviceGetUtilizationRates");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(temperature, "nvmlDeviceGetTemperature");
    find(power, "nvmlDeviceGetPowerUsage");
    find(clock, "nvmlDeviceGetClockInfo");
    find(energy, "nvmlDeviceGetTotalEnergyConsumption");
    started = init != nullptr && init() == 0;
  }
  ~Library() {
    if (started && shutdown != nullptr) shutdown();
    if (handle != nullptr) dlclose(handle);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <typename Function>
  void find(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(handle, name));
  }
  [[nodiscard]] Device device(const std::string& bus_id) const {
    Device found = nullptr;
    return device_by_bus_id != nullptr && device_by_bus_id(bus_id.c_str(), &found) == 0 ? found : nullptr;
  }
};

Nvml::Nvml(const char* library) : library_(std::make_unique<Library>(library)) {
  if (!library_->started) library_.reset();
}

Nvml::~Nvml() = default;

std::string Nvml::driver() const {
  std::array<char, 96> text{};  // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE is 80
  if (!library_ || library_->driver_version == nullptr) return "";
  return library_->driver_version(text.data(), text.size() - 1) == 0 ? text.data() : "";
}

GpuSample Nvml::sample(const std::string& bus_id) const {
  GpuSample out;
  const Device device = library_ ? library_->device(bus_id) : nullptr;
  if (device == nullptr) return out;
  const Library& nvml = *library_;
  constexpr double milli = 1e-3;
  if (Utilization u{}; nvml.utilization != nullptr && nvml.utilization(device, &u) == 0) {
    out.utilization = static_cast<int>(u.gpu);
  }
  if (Memory m{}; nvml.memory != nullptr && nvml.memory(device, &m) == 0) out.memory_used = m.used;
  unsigned int value = 0;
  if (nvml.temperature != nullptr && nvml.temperature(device, kTemperatureOfGpu, &value) == 0) {
    out.temperature = static_cast<int>(value);
  }
  if (nvml.power != nullptr && nvml.power(device, &value) == 0) out.power = value * milli;
  if (nvml.clock != nullptr && nvml.clock(device, kClockOfSms, &value) == 0) out.sm_clock = static_cast<int>(value);
  out.energy_joules = energy_joules(bus_id);
  return out;
}

std::optional<double> Nvml::energy_joules(const std::string& bus_id) const {
  const Device device = library_ ? library_->device(bus_id) : nullptr;
  unsigned long long millijoules = 0;
  if (device == nullptr || library_->energy == nullptr || library_->energy(device, &millijoules) != 0) {
    return std::nullopt;
  }
  constexpr double milli = 1e-3;
  return static_cast<double>(millijoules) * milli;
}

}  // namespace mxlm
