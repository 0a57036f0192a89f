#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace mxlm {

/// What the control groups of a process say about memory, in bytes: the least of all groups from its own up to the
/// root.
struct CgroupMemory {
  uint64_t limit = UINT64_MAX;  // v2: memory.max and memory.high; v1: memory.limit_in_bytes
  uint64_t room = UINT64_MAX;   // what the limit leaves beside memory that is in use and that the kernel cannot drop
};

/// Reads the groups, of v1 or v2, of which `process`/cgroup and `process`/mountinfo tell; where a group cannot be read
/// (in containers a path may lie outside of what is mounted) those above it count.
CgroupMemory cgroup_memory(const std::filesystem::path& process = "/proc/self");

/// The most that this process could ever have: the cgroups' limit, else the machine's memory.
uint64_t memory_limit_bytes();

/// What this process may use, with what it uses already: the cgroups' limit without what others use of it.
uint64_t memory_budget_bytes();

/// What this process may still take beside what it uses: the rest of its budget, and of its address space where that is
/// limited (`ulimit -v`).
uint64_t memory_room_bytes();

/// Resident set now (VmRSS) and the largest so far (VmHWM), in bytes; 0 if the kernel does not tell.
uint64_t resident_memory_bytes();
uint64_t peak_memory_bytes();

}  // namespace mxlm
