#pragma once

// The operations on NVIDIA GPUs. The one header of this folder that others may include: it names no CUDA type.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"

namespace mxlm {

/// The bytes of a device's free memory that a run may use: nine tenths, because libraries allocate beside the backend.
constexpr uint64_t usable_memory(uint64_t free) { return free / 10 * 9; }

/// A GPU as the driver lists it (CUDA_VISIBLE_DEVICES counts).
struct CudaDevice {
  int index = 0;
  std::string name;          // "NVIDIA H100 80GB HBM3"
  std::string architecture;  // "sm_90"
  std::string bus_id;        // PCI bus id, "0000:3b:00.0", by which NVML knows the device
  uint64_t memory_bytes = 0, free_bytes = 0;
  bool supported = false;  // this build has code for it
  [[nodiscard]] uint64_t usable_bytes() const { return usable_memory(free_bytes); }
};

/// The GPUs of this machine, or why there are none.
struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string reason;  // the end of a sentence: "this build has no CUDA", "there is no NVIDIA driver"...
};
CudaDevices find_cuda_devices();

/// The libraries whose choices decide the last bits of a GPU's products, with their versions; "" without CUDA.
std::string cuda_libraries();

/// How MX products are computed where a route faster than the exact one exists (docs/numerics.md).
enum class GemmRoute : uint8_t {
  exact,  // quantised, decoded to bfloat16, multiplied with float32 sums
  // FP8 where that applies: on Hopper with exponents folded into row and column scales, from compute capability 10.0 on
  // with block scales in hardware.
  fast,
};

struct CudaOptions {
  int device = 0;
  GemmRoute route = GemmRoute::exact;
  bool reversed = false;      // sums of matrix products in another order
  uint64_t memory_limit = 0;  // bytes of device memory that may be used, at most usable_memory; 0 = all of that
};

/// Throws Error if there is no such device. Operations throw OutOfDeviceMemory.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

}  // namespace mxlm
