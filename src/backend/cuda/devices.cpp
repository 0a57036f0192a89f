// The GPUs of the machine.

#include <cublasLt.h>
#ifdef MXLM_WITH_CUDNN
#include <cudnn.h>
#endif

#include <array>

#include "backend/cuda/backend.hpp"
#include "backend/cuda/runtime.hpp"
#include "base/error.hpp"

namespace mxlm {

CudaDevices find_cuda_devices() {
  CudaDevices found;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    found.reason = driver == 0 ? "there is no NVIDIA driver"
                   : status == cudaErrorInsufficientDriver
                       ? fmt::format("the NVIDIA driver is too old for CUDA {}.{}", CUDART_VERSION / 1000,
                                     CUDART_VERSION % 1000 / 10)
                       : "the NVIDIA driver lists no GPU";
    return found;
  }
  if (status != cudaSuccess) {
    found.reason = fmt::format("the NVIDIA driver says: {}", cudaGetErrorString(status));
    return found;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
      cudaGetLastError();
      continue;
    }
    CudaDevice device{.index = i,
                      .name = properties.name,
                      .architecture = fmt::format("sm_{}{}", properties.major, properties.minor),
                      .bus_id = "",
                      .memory_bytes = properties.totalGlobalMem};
    std::array<char, 32> bus{};
    if (cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), i) == cudaSuccess) device.bus_id = bus.data();
    // Fails where the binary has no code for the device.
    int before = 0;
    cudaGetDevice(&before);
    size_t free = 0, total = 0;
    device.supported = cudaSetDevice(i) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess &&
                       cuda::has_code_for_this_device();
    cudaGetLastError();
    cudaSetDevice(before);
    device.free_bytes = free;
    found.devices.push_back(std::move(device));
  }
  if (found.devices.empty()) found.reason = "no GPU that the NVIDIA driver lists can be used";
  return found;
}

std::string cuda_libraries() {
  std::string out = fmt::format("CUDA {}, cuBLASLt {}", CUDART_VERSION, cublasLtGetVersion());
#ifdef MXLM_WITH_CUDNN
  out += fmt::format(", cuDNN {}", cudnnGetVersion());
#endif
  return out;
}

}  // namespace mxlm
