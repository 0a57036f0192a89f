// What stands in for backend/cuda in a build without it.

#include "backend/cuda/backend.hpp"

#include "base/error.hpp"

namespace mxlm {

CudaDevices find_cuda_devices() {
  return {.devices = {}, .reason = "this build has no CUDA backend (configure it with -DMXLM_CUDA=ON)"};
}

std::string cuda_libraries() { return ""; }

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& /*options*/) {
  fail("There is no GPU to use: {}.", find_cuda_devices().reason);
}

}  // namespace mxlm
