#pragma once

#include <cstdint>
#include <string>

namespace mxlm {

/// Memory this process may use, in bytes: the cgroup's limit (v1 or v2), else the machine's memory.
uint64_t memory_limit_bytes();

/// Largest resident set so far (VmHWM), in bytes; 0 if the kernel does not tell.
uint64_t peak_memory_bytes();

/// The processor's and the kernel's names, for reports.
std::string cpu_name();
std::string os_name();

}  // namespace mxlm
