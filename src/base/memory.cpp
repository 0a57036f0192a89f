#include "base/memory.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {
namespace {

namespace fs = std::filesystem;

/// Reads a number from a one-line file of the kernel; nullopt if the file has no number ("max" included).
std::optional<uint64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

/// The sum of lines "KEY NUMBER" of a file of the kernel.
uint64_t sum_of(const fs::path& path, const std::vector<std::string_view>& keys) {
  std::ifstream file(path);
  std::string key;
  uint64_t value = 0, sum = 0;
  while (file >> key >> value) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) sum += value;
  }
  return sum;
}

/// A line "KEY:  NUMBER kB" of /proc/self/status, in bytes.
uint64_t status_bytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind(key, 0) != 0) continue;
    std::istringstream fields(line.substr(key.size()));
    uint64_t kilobytes = 0;
    fields >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

bool holds_word(const std::string& list, std::string_view word) {
  std::istringstream words(list);
  std::string next;
  while (std::getline(words, next, ',')) {
    if (next == word) return true;
  }
  return false;
}

/// The place where a hierarchy of groups is mounted.
struct Mount {
  fs::path root, point;  // `root` is the group that appears at `point`
  bool v2 = false;
};

/// The mounts of groups that may limit memory. A line of mountinfo: ID PARENT DEVICE ROOT POINT OPTIONS [TAGS] - TYPE
/// SOURCE SUPER_OPTIONS.
std::vector<Mount> memory_mounts(const fs::path& process) {
  std::vector<Mount> mounts;
  std::ifstream file(process / "mountinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash)), after(line.substr(dash + 3));
    std::string id, parent, device, root, point, type, source, options;
    before >> id >> parent >> device >> root >> point;
    after >> type >> source >> options;
    if (type == "cgroup2" || (type == "cgroup" && holds_word(options, "memory"))) {
      mounts.push_back({.root = root, .point = point, .v2 = type == "cgroup2"});
    }
  }
  return mounts;
}

/// The process's group in a hierarchy, from lines ID:CONTROLLERS:PATH; v2's is the one without controllers.
std::optional<fs::path> group_of(const fs::path& process, bool v2) {
  std::ifstream file(process / "cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? controllers.empty() : holds_word(controllers, "memory")) return line.substr(second + 1);
  }
  return std::nullopt;
}

void read_group(const fs::path& group, bool v2, CgroupMemory& out) {
  uint64_t limit = UINT64_MAX;
  for (const char* name : {"memory.max", "memory.high", "memory.limit_in_bytes"}) {
    if (v2 == (std::string_view(name) == "memory.limit_in_bytes")) continue;
    limit = std::min(limit, read_number(group / name).value_or(UINT64_MAX));
  }
  if (limit == UINT64_MAX) return;
  out.limit = std::min(out.limit, limit);
  const uint64_t usage = read_number(group / (v2 ? "memory.current" : "memory.usage_in_bytes")).value_or(0);
  const uint64_t droppable =
      sum_of(group / "memory.stat", v2 ? std::vector<std::string_view>{"inactive_file", "active_file"}
                                       : std::vector<std::string_view>{"total_inactive_file", "total_active_file"});
  const uint64_t used = usage - std::min(usage, droppable);
  out.room = std::min(out.room, limit - std::min(limit, used));
}

}  // namespace

CgroupMemory cgroup_memory(const fs::path& process) {
  CgroupMemory out;
  for (const Mount& mount : memory_mounts(process)) {
    const auto group = group_of(process, mount.v2);
    if (!group) continue;
    // Groups above the mount's root are invisible. A path outside the root belongs to a container, whose own group is
    // at the mount point.
    fs::path below = group->lexically_relative(mount.root);
    if (below.empty() || *below.begin() == "..") below = ".";
    for (fs::path at = (mount.point / below).lexically_normal();; at = at.parent_path()) {
      read_group(at, mount.v2, out);
      if (at == mount.point || !at.has_relative_path()) break;
    }
  }
  return out;
}

uint64_t memory_limit_bytes() {
  const auto machine = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
  return std::min(machine, cgroup_memory().limit);
}

uint64_t memory_budget_bytes() {
  const CgroupMemory groups = cgroup_memory();
  const uint64_t limit = memory_limit_bytes();
  if (groups.room >= limit) return limit;
  return std::min(limit, groups.room + status_bytes("RssAnon:"));
}

uint64_t memory_room_bytes() {
  const auto rest = [](uint64_t limit, uint64_t used) { return limit - std::min(limit, used); };
  const uint64_t room = rest(memory_budget_bytes(), status_bytes("RssAnon:"));
  rlimit space{};
  if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY) return room;
  return std::min(room, rest(space.rlim_cur, status_bytes("VmSize:")));
}

uint64_t resident_memory_bytes() { return status_bytes("VmRSS:"); }
uint64_t peak_memory_bytes() { return status_bytes("VmHWM:"); }

}  // namespace mxlm
