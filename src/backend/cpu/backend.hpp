#pragma once

#include <memory>
#include <optional>

#include "backend/backend.hpp"
#include "backend/cpu/gemm.hpp"

namespace mxlm {

struct CpuOptions {
  int threads = 0;                         // the calling thread included; 0: one for each core
  std::optional<cpu::Isa> isa;             // nullopt: the best there is
  cpu::Order order = cpu::Order::forward;  // of the float32 sums of matrix products
};

/// The operations on x86-64 processors. Throws Error if the processor lacks `isa`.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

}  // namespace mxlm
