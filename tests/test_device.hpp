#pragma once

// Which device the tests of whole models and of operations against reference figures run on: the CPU, or with
// MXLM_TEST_DEVICE=cuda in the environment the first GPU (scripts/test-gpu), on which the same figures have to come out
// within the same tolerances.

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string_view>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "backend/cuda/backend.hpp"
#include "base/error.hpp"

namespace mxlm {

inline bool test_on_gpu() {
  static const bool gpu = [] {
    const char* device = std::getenv("MXLM_TEST_DEVICE");
    const std::string_view name = device == nullptr ? "cpu" : device;
    if (name != "cpu" && name != "cuda") fail("MXLM_TEST_DEVICE is '{}'; it may be cpu or cuda.", name);
    return name == "cuda";
  }();
  return gpu;
}

/// The backend under test: that of the CPU as `options` say, or the GPU's, of which threads and instruction sets are no
/// concern. A new one each time: a backend may keep tables by their address, where the next test's may lie.
inline std::unique_ptr<Backend> test_backend(const CpuOptions& options) {
  if (!test_on_gpu()) return make_cpu_backend(options);
  CudaOptions cuda;
  cuda.reversed = options.order == cpu::Order::reversed;
  cuda.memory_limit = uint64_t{4} << 30;
  return make_cuda_backend(cuda);
}

/// The instruction sets to go through: all that this processor has, or one that stands for the GPU.
inline std::vector<cpu::Isa> test_isas() {
  if (test_on_gpu()) return {cpu::detect_isa()};
  std::vector<cpu::Isa> all;
  for (const cpu::Isa isa :
       {cpu::Isa::portable, cpu::Isa::avx2, cpu::Isa::avx512, cpu::Isa::avx512_bf16, cpu::Isa::amx_bf16}) {
    if (isa <= cpu::detect_isa()) all.push_back(isa);
  }
  return all;
}

}  // namespace mxlm

/// Skips a test that speaks of the CPU alone (its memory, threads or instruction sets) where the GPU is under test.
#define MXLM_CPU_ONLY(why)                          \
  do {                                              \
    if (mxlm::test_on_gpu()) GTEST_SKIP() << (why); \
  } while (false)
