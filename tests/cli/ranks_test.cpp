// Runs that several processes share: ranks of mpirun, and processes with one journal folder.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "figures.hpp"
#include "run_mxlm.hpp"
#include "sanitized.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

// Under a sanitizer ranks are slow, and wait for each other in loops that never sleep: one test and short runs do.
const std::string kRanksRun = "eval --device cpu --threads 1 --context 64 --shard-tokens 128 --mx mlp=mxfp4 ";
const std::string kShortRun = kRanksRun + "--max-windows 12 ";

/// What a shell needs before the program for so many ranks. What Open MPI leaks at its end is not ours.
std::string mpirun(int ranks) {
  return fmt::format(
      "export ASAN_OPTIONS=detect_leaks=0 OMPI_MCA_btl_vader_single_copy_mechanism=none "
      "OMPI_MCA_rmaps_base_oversubscribe=1; mpirun "
      "--allow-run-as-root --oversubscribe --bind-to none -n {} ",
      ranks);
}

class CliRanks : public testing::Test {
 protected:
  void SetUp() override {
    if (!MXLM_WITH_MPI) GTEST_SKIP() << "this build has no MPI";
    if (std::system("command -v mpirun >/dev/null") != 0) GTEST_SKIP() << "no mpirun here";
  }
  [[nodiscard]] std::string to(const std::string& name) const { return "--json '" + folder_ / name + "' "; }
  [[nodiscard]] json peace(const std::string& run = kShortRun) const {
    const Outcome alone = run_mxlm(run + to("peace.json") + "--no-journal");
    EXPECT_EQ(alone.code, 0) << alone.err;
    return figures(folder_ / "peace.json");
  }
  Folder folder_;
  std::string keep_ = "--journal '" + folder_ / "journal" + "' ";
};

TEST_F(CliRanks, TheirNumberChangesNoDigit) {
  const json expected = peace();
  const std::string table = run_mxlm(kShortRun + "--no-journal --quiet").out;
  for (const int ranks : kSanitized ? std::vector<int>{2} : std::vector<int>{1, 2, 4}) {
    const Outcome outcome = run_mxlm(kShortRun + to("out.json") + "--no-journal", mpirun(ranks));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(figures(folder_ / "out.json"), expected) << ranks;
    EXPECT_EQ(json::parse(slurp(folder_ / "out.json"))["runs"][0]["ranks"], ranks);
    // Once, by rank 0 alone.
    EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), std::count(table.begin(), table.end(), '\n'))
        << outcome.out;
  }
}

TEST_F(CliRanks, OneThatDiesEndsTheRunWhichAnyOtherNumberFinishes) {
  if (kSanitized) GTEST_SKIP() << "one test of ranks is run with sanitizers";
  const std::string run = kRanksRun + "--max-windows 40 ";
  const json expected = peace(run);
  // Rank 1 kills itself once something is in the journal.
  const std::string script =
      folder_.file("rank.sh", "if [[ $OMPI_COMM_WORLD_RANK == 1 ]]; then\n\"$@\" & pid=$!; " +
                                  wait_until(a_record_in(quoted(folder_ / "journal/rounds.mxj"))) +
                                  "kill -KILL $pid; kill -KILL $$\nfi\nexec \"$@\"\n");
  const Outcome died = run_mxlm(run + to("out.json") + keep_, mpirun(3) + "bash '" + script + "'");
  EXPECT_NE(died.code, 0);
  EXPECT_THAT(died.err, HasSubstr("--resume"));
  EXPECT_THAT(died.err, HasSubstr("signal 9"));
  const Outcome resumed = run_mxlm(run + to("out.json") + keep_ + "--resume", mpirun(2));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("of 40 windows are in the journal"));
  EXPECT_EQ(figures(folder_ / "out.json"), expected);
}

TEST_F(CliRanks, AnErrorOfOneEndsAllAndIsToldOnce) {
  const Outcome refused = run_mxlm(kShortRun + "--no-journal --threads 0", mpirun(2));
  EXPECT_EQ(refused.code, 2) << refused.err;
  EXPECT_EQ(refused.err.find("--threads"), refused.err.rfind("--threads")) << refused.err;
  const std::string script = folder_.file(
      "rank.sh", "[[ $OMPI_COMM_WORLD_RANK == 0 ]] && exec \"$@\"; exec \"$@\" --device cuda:77 --gemm exact\n");
  const Outcome one = run_mxlm(kShortRun + "--no-journal", mpirun(2) + "bash '" + script + "'");
  EXPECT_EQ(one.code, 1) << one.err;
  EXPECT_THAT(one.err, HasSubstr("rank 1 on "));
  EXPECT_THAT(one.err, HasSubstr("There is no GPU"));
}

TEST_F(CliRanks, OthersOfAnotherKindAreRefusedUnlessTheyMayBeMixed) {
  if (kSanitized) GTEST_SKIP() << "one test of ranks is run with sanitizers";
  const std::string script =
      folder_.file("rank.sh", "[[ $OMPI_COMM_WORLD_RANK == 0 ]] || export MXLM_ISA=portable; exec \"$@\"\n");
  const std::string start = mpirun(2) + "bash '" + script + "'";
  const Outcome refused = run_mxlm(kShortRun + "--no-journal", start);
  if (refused.code == 0) GTEST_SKIP() << "this machine has the portable kernels alone";
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("--mixed-ranks"));
  EXPECT_THAT(refused.err, HasSubstr("portable"));
  const Outcome mixed = run_mxlm(kShortRun + "--mixed-ranks " + keep_, start);
  EXPECT_EQ(mixed.code, 0) << mixed.err;
  EXPECT_THAT(slurp(folder_ / "journal/plan.json"), HasSubstr(" beside "));
}

TEST_F(CliRanks, ASweepIsSharedToo) {
  if (kSanitized) GTEST_SKIP() << "one test of ranks is run with sanitizers";
  const std::string sweep =
      "sweep --device cpu --threads 1 --context 64 --shard-tokens 128 --max-windows 6 --formats "
      "mxfp4 mxint8 --no-journal ";
  ASSERT_EQ(run_mxlm(sweep + to("peace.json")).code, 0);
  const Outcome outcome = run_mxlm(sweep + to("out.json"), mpirun(2));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(figures(folder_ / "out.json"), figures(folder_ / "peace.json"));
}

TEST_F(CliRanks, WhatEvaluatesNothingRunsOnce) {
  const Outcome formats = run_mxlm("formats", mpirun(2));
  EXPECT_EQ(formats.code, 0) << formats.err;
  EXPECT_EQ(formats.out, run_mxlm("formats").out);
}

class CliShared : public testing::Test {
 protected:
  [[nodiscard]] std::string to(const std::string& name) const { return "--json '" + folder_ / name + "' "; }
  Folder folder_;
  std::string keep_ = "--journal '" + folder_ / "journal" + "' ";
};

TEST_F(CliShared, ProcessesShareTheRoundsAndEachHasTheResult) {
  const std::string run = kRanksRun + (kSanitized ? "--max-windows 4 " : "--max-windows 24 ");
  ASSERT_EQ(run_mxlm(run + "--no-journal " + to("peace.json")).code, 0);
  const std::string shared = run + keep_ + "--shared ";
  const Outcome both = run_mxlm(shared + to("b.json") + "; code=$?; wait; exit $code",
                                "'" MXLM_BINARY "' " + shared + to("a.json") + " & ");
  ASSERT_EQ(both.code, 0) << both.err;
  const Outcome wait = run_mxlm(shared + to("c.json"));  // finds everything done
  ASSERT_EQ(wait.code, 0) << wait.err;
  for (const char* name : {"a.json", "b.json", "c.json"}) {
    EXPECT_EQ(figures(folder_ / name), figures(folder_ / "peace.json")) << name;
  }
  // One process alone may go on with it, too.
  EXPECT_EQ(run_mxlm(run + keep_ + "--resume " + to("d.json")).code, 0);
  EXPECT_EQ(figures(folder_ / "d.json"), figures(folder_ / "peace.json"));
}

TEST_F(CliShared, TheClaimOfOneThatIsKilledExpires) {
  const std::string run = kRanksRun + (kSanitized ? "--max-windows 8 " : "--max-windows 40 ") + "--shard-tokens 1024 ";
  ASSERT_EQ(run_mxlm(run + "--no-journal " + to("peace.json")).code, 0);
  const std::string shared = run + keep_ + "--shared --claim-timeout 2 ";
  // Killed as soon as it holds a claim.
  const Outcome killed =
      run_mxlm("", "'" MXLM_BINARY "' " + shared + " & pid=$!; " +
                       wait_until("compgen -G '" + folder_ / "journal/claim.*" + "' >/dev/null", 600) +
                       "kill -KILL $pid; wait $pid 2>/dev/null; true");
  const Outcome other = run_mxlm(shared + to("out.json"));
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_THAT(other.err, HasSubstr("has not been heard of for 2 s"));
  EXPECT_EQ(figures(folder_ / "out.json"), figures(folder_ / "peace.json"));
}

TEST_F(CliShared, AClaimThatCannotBeTrueIsNotWaitedForLong) {
  const std::string run = kRanksRun + "--max-windows 8 ";
  ASSERT_EQ(run_mxlm(run + "--no-journal " + to("peace.json")).code, 0);
  const std::string shared = run + keep_ + "--shared --claim-timeout 3 ";
  // Of a process that has died, dated far ahead of any clock; a folder, a link and a pipe in the place of claims.
  const std::string journal = folder_ / "journal";
  fs::create_directories(journal + "/claim.0.1/full");
  fs::create_symlink("/nowhere", journal + "/claim.0.2");
  ASSERT_EQ(mkfifo((journal + "/claim.0.3").c_str(), 0600), 0);
  std::ofstream(journal + "/claim.0.0") << "rounds.elsewhere.4711.0.mxj\n";
  const Outcome other =
      run_mxlm(shared + to("out.json"), "touch -d 2099-01-01 " + quoted(journal + "/claim.0.0") + ";");
  ASSERT_EQ(other.code, 0) << other.err;
  EXPECT_THAT(other.err, HasSubstr("waiting for shard 1, claimed by process '4711' on 'elsewhere'"));
  EXPECT_THAT(other.err,
              HasSubstr("shard 1 was claimed by process '4711' on 'elsewhere', which has not been heard of"));
  for (const char* round : {"2", "3", "4"}) {
    EXPECT_THAT(other.err, HasSubstr(std::string("shard ") + round + " is claimed again"));
  }
  EXPECT_THAT(other.err, HasSubstr("'foreign.0.1."));
  EXPECT_EQ(figures(folder_ / "out.json"), figures(folder_ / "peace.json"));
}

TEST_F(CliShared, OthersAreRefused) {
  const std::string shared = kShortRun + keep_ + "--shared ";
  ASSERT_EQ(run_mxlm(shared).code, 0);
  const Outcome variants = run_mxlm(shared + "--mx linear=mxfp8");
  EXPECT_EQ(variants.code, 1);
  EXPECT_THAT(variants.err, HasSubstr("cannot be added"));
  const Outcome kind = run_mxlm(shared, "export MXLM_ISA=portable; ");
  if (kind.code != 0) {
    EXPECT_THAT(kind.err, HasSubstr("backend: "));
  }
  EXPECT_EQ(run_mxlm(kShortRun + "--shared").code, 2);
  EXPECT_EQ(run_mxlm(kShortRun + "--shared --no-journal " + keep_).code, 2);
}

}  // namespace
}  // namespace mxlm
