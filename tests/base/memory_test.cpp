// What control groups say about memory, of v1 and v2, as the kernel lays their files out.
#include "base/memory.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace mxlm {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMega = 1 << 20;

class Cgroups : public testing::Test {
 protected:
  Cgroups() {
    std::string name = (fs::temp_directory_path() / "mxlm_cgroup_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    root_ = name;
  }
  ~Cgroups() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  void file(const fs::path& at, const std::string& text) const {
    fs::create_directories((root_ / at).parent_path());
    std::ofstream(root_ / at) << text;
  }
  /// mountinfo and cgroup of a process. `seen`: the group that is mounted at `point`.
  void process(const std::string& groups, const std::string& type, const std::string& point, const std::string& seen,
               const std::string& options) const {
    file("proc/cgroup", groups);
    file("proc/mountinfo", "22 1 0:21 / /proc rw shared:5 - proc proc rw\n31 22 0:27 " + seen + " " +
                               (root_ / point).string() + " rw,nosuid shared:9 master:2 - " + type + " cgroup " +
                               options + "\n");
  }
  [[nodiscard]] CgroupMemory read() const { return cgroup_memory(root_ / "proc"); }

  fs::path root_;
};

TEST_F(Cgroups, TheLeastLimitOfAllGroupsOfV2) {
  process("0::/user.slice/job\n", "cgroup2", "v2", "/", "rw");
  EXPECT_EQ(read().limit, UINT64_MAX);  // nothing says anything
  file("v2/user.slice/job/memory.max", "max\n");
  file("v2/user.slice/job/memory.high", "max\n");
  EXPECT_EQ(read().limit, UINT64_MAX);
  EXPECT_EQ(read().room, UINT64_MAX);
  file("v2/user.slice/memory.max", std::to_string(300 * kMega) + "\n");
  EXPECT_EQ(read().limit, 300 * kMega);
  file("v2/user.slice/job/memory.high", std::to_string(200 * kMega) + "\n");
  EXPECT_EQ(read().limit, 200 * kMega);
  file("v2/user.slice/other/memory.max", "1\n");  // not ours
  EXPECT_EQ(read().limit, 200 * kMega);
}

TEST_F(Cgroups, RoomIsWhatOthersLeave) {
  process("0::/job\n", "cgroup2", "v2", "/", "rw");
  file("v2/job/memory.max", std::to_string(500 * kMega) + "\n");
  file("v2/job/memory.current", std::to_string(400 * kMega) + "\n");
  // Pages of files can be dropped, those of shared memory cannot.
  file("v2/job/memory.stat", "anon 1\nfile 104857600\ninactive_file " + std::to_string(90 * kMega) + "\nactive_file " +
                                 std::to_string(10 * kMega) + "\nshmem 5\n");
  EXPECT_EQ(read().room, 200 * kMega);
  file("v2/job/memory.current", std::to_string(700 * kMega) + "\n");  // above its limit for a moment
  EXPECT_EQ(read().room, 0U);
}

TEST_F(Cgroups, V1) {
  process("11:cpuset:/\n4:hugetlb,memory:/docker/abc\n0::/\n", "cgroup", "memory", "/", "rw,memory");
  file("memory/memory.limit_in_bytes", "9223372036854771712\n");
  file("memory/docker/abc/memory.limit_in_bytes", std::to_string(100 * kMega) + "\n");
  file("memory/docker/abc/memory.usage_in_bytes", std::to_string(50 * kMega) + "\n");
  file("memory/docker/abc/memory.stat",
       "inactive_file 1\ntotal_inactive_file " + std::to_string(20 * kMega) + "\ntotal_active_file 0\n");
  EXPECT_EQ(read().limit, 100 * kMega);
  EXPECT_EQ(read().room, 70 * kMega);
}

TEST_F(Cgroups, AContainerSeesItsOwnGroupAtTheMount) {
  // The host's path, of which only the last part is mounted, or none at all.
  for (const std::string seen : {"/docker/abc", "/docker/another"}) {
    process("4:memory:/docker/abc\n", "cgroup", "memory", seen, "rw,memory");
    file("memory/memory.limit_in_bytes", std::to_string(64 * kMega) + "\n");
    EXPECT_EQ(read().limit, 64 * kMega) << seen;
  }
}

TEST_F(Cgroups, OtherControllersAndBrokenFilesSayNothing) {
  process("4:cpu:/a\nnonsense\n", "cgroup", "cpu", "/", "rw,cpu");
  file("cpu/a/memory.limit_in_bytes", "1\n");
  EXPECT_EQ(read().limit, UINT64_MAX);
  file("proc/mountinfo", "\n - \n1 2 3 - cgroup2\n");
  EXPECT_EQ(read().limit, UINT64_MAX);
  EXPECT_EQ(cgroup_memory(root_ / "nowhere").limit, UINT64_MAX);
}

TEST(Memory, OfThisProcess) {
  EXPECT_GT(memory_limit_bytes(), 10 * kMega);
  EXPECT_LE(memory_budget_bytes(), memory_limit_bytes());
  EXPECT_GT(resident_memory_bytes(), kMega / 2);
  EXPECT_GE(peak_memory_bytes(), resident_memory_bytes());
}

}  // namespace
}  // namespace mxlm
