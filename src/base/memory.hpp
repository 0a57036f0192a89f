#pragma once

// How much memory the process may use, from control groups, limits and the machine.

#include <cstdint>
#include <filesystem>
#include <string>

namespace mxlm {

/// What the control groups of a process say about memory, in bytes: the smallest values from its own group up to the
/// root.
struct CgroupMemory {
  uint64_t limit = UINT64_MAX;  // v2: memory.max and memory.high; v1: memory.limit_in_bytes
  uint64_t room = UINT64_MAX;   // the limit without memory that is in use and that the kernel cannot drop
};

/// Reads the groups of v1 or v2 that `process`/cgroup and `process`/mountinfo name. If a group cannot be read (the path
/// of a container may lie outside the mount), the groups above it count.
CgroupMemory cgroup_memory(const std::filesystem::path& process = "/proc/self");

/// The most memory that this process could ever have: the limit of its groups, or else the machine's memory.
uint64_t memory_limit_bytes();

/// The memory that this process may use, including what it uses already: the groups' limit without what other processes
/// use.
uint64_t memory_budget_bytes();

/// The memory that this process may still take: the rest of its budget, and of its address space if that is limited
/// (`ulimit -v`).
uint64_t memory_room_bytes();

/// The resident set now (VmRSS) and its maximum so far (VmHWM), in bytes; 0 if the kernel does not say.
uint64_t resident_memory_bytes();
uint64_t peak_memory_bytes();

}  // namespace mxlm
