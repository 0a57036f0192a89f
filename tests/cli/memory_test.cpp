// Memory: what the plan says, and life under a control group's limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "run_mxlm.hpp"
#include "sanitized.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

TEST(Memory, ThePlanIsWithinATenthOfThePeak) {
  if (kSanitized) GTEST_SKIP() << "the sanitizer takes memory, too";
  const Folder folder;
  for (const char* arguments : {"--device cpu --max-windows 6", "--device cpu --mx mlp=mxfp4 --max-windows 24 --stream",
                                "--device cpu --batch-size 1 --context 64 --no-variants --max-windows 99"}) {
    const Outcome out = run_mxlm("eval --quiet --json '" + folder / "out.json" + "' " + arguments);
    ASSERT_EQ(out.code, 0) << out.err;
    const json run = json::parse(slurp(folder / "out.json"))["runs"][0];
    const auto planned = run["planned_memory_bytes"].get<double>(), peak = run["peak_memory_bytes"].get<double>();
    EXPECT_NEAR(planned / peak, 1, 0.1) << arguments << ": " << planned << " against " << peak;
  }
}

/// A control group below our own with a limit, where the kernel lets us make one.
class LimitedGroup {
 public:
  explicit LimitedGroup(uint64_t bytes) {
    std::ifstream groups("/proc/self/cgroup");
    std::string line;
    while (std::getline(groups, line)) {
      const bool v2 = line.rfind("0::", 0) == 0;
      if (!v2 && line.find(":memory:") == std::string::npos) continue;
      const fs::path mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
      const fs::path at = mount / fs::path(line.substr(line.rfind(':') + 1)).relative_path() /
                          ("mxlm_test_" + std::to_string(getpid()) + "_" + std::to_string(bytes));
      std::error_code ignored;
      if (!fs::create_directory(at, ignored)) continue;
      path_ = at;
      std::ofstream limit(at / (v2 ? "memory.max" : "memory.limit_in_bytes"));
      limit << bytes << std::flush;
      if (limit.good()) return;
      fs::remove(at, ignored);
      path_.reset();
    }
  }
  ~LimitedGroup() {
    std::error_code ignored;
    if (path_) fs::remove(*path_, ignored);
  }
  LimitedGroup(const LimitedGroup&) = delete;
  LimitedGroup& operator=(const LimitedGroup&) = delete;
  [[nodiscard]] bool made() const { return path_.has_value(); }
  /// For the shell that runs mxlm.
  [[nodiscard]] std::string enter() const { return "echo $$ >'" + (*path_ / "cgroup.procs").string() + "';"; }

 private:
  std::optional<fs::path> path_;
};

TEST(Memory, ARunStaysInsideItsControlGroup) {
  if (kSanitized) GTEST_SKIP() << "the sanitizer takes memory, too";
  const LimitedGroup group(uint64_t{72} << 20);
  if (!group.made()) GTEST_SKIP() << "this user may not make control groups";
  const Folder folder;
  const std::string run = "eval --device cpu --quiet --mx mlp=mxfp4 --json '";
  const Outcome free = run_mxlm(run + folder / "free.json" + "'");
  ASSERT_EQ(free.code, 0) << free.err;
  const Outcome limited = run_mxlm(run + folder / "limited.json" + "'", group.enter());
  ASSERT_EQ(limited.code, 0) << limited.err;
  const json a = json::parse(slurp(folder / "free.json")), b = json::parse(slurp(folder / "limited.json"));
  EXPECT_GT(a["runs"][0]["peak_memory_bytes"], uint64_t{80} << 20);  // it took more than the limit where it might
  EXPECT_LT(b["runs"][0]["peak_memory_bytes"], uint64_t{72} << 20);
  EXPECT_EQ(b["machine"]["memory_bytes"], uint64_t{72} << 20);
  for (size_t v = 0; v < 2; ++v) {
    EXPECT_EQ(a["runs"][0]["variants"][v]["nll"], b["runs"][0]["variants"][v]["nll"]);
    EXPECT_EQ(a["runs"][0]["variants"][v]["vs_baseline"], b["runs"][0]["variants"][v]["vs_baseline"]);
  }
  // Where nothing fits, a sentence says so.
  const LimitedGroup small(uint64_t{40} << 20);
  ASSERT_TRUE(small.made());
  const Outcome refused = run_mxlm("eval --device cpu --quiet --context 512", small.enter());
  EXPECT_EQ(refused.code, 1) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("may be used"));
}

}  // namespace
}  // namespace mxlm
