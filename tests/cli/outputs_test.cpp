// What was computed arrives: results whose table, pages or terminal are lost, that would replace better ones, or whose
// model changes meanwhile.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "figures.hpp"
#include "run_mxlm.hpp"
#include "sanitized.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

// Windows of a run that something happens to after its first round. More than a fast machine does by then.
constexpr int kLong = kSanitized ? 80 : 400;

const std::string kOutputRun = "eval --device cpu --threads 1 --context 64 --shard-tokens 128 --mx mlp=mxfp4 ";

class CliOutputs : public testing::Test {
 protected:
  [[nodiscard]] std::string all_files() const {
    std::string out;
    for (const char* kind : {"json", "html", "csv", "markdown"}) {
      out += std::string("--") + kind + " " + quoted(folder_ / ("out." + std::string(kind))) + " ";
    }
    return out + "--per-token " + quoted(folder_ / "tokens.csv") + " ";
  }
  void expect_all_files() const {
    for (const char* name : {"out.json", "out.html", "out.csv", "out.markdown", "tokens.csv"}) {
      EXPECT_TRUE(fs::exists(folder_ / name)) << name;
    }
  }
  /// A copy of the model that a test may spoil.
  [[nodiscard]] std::string own_model() const {
    fs::copy(kModel, folder_.path() / "m");
    return folder_ / "m";
  }
  /// For a shell: waits until the journal at hand holds a round.
  [[nodiscard]] std::string first_round() const { return wait_until(a_record_in(quoted(journal_ + "/rounds.mxj"))); }
  Folder folder_;
  const std::string journal_ = folder_ / "journal";
  std::string keep_ = "--journal " + quoted(journal_) + " ";
};

TEST_F(CliOutputs, AStandardOutputThatIsGoneCostsTheTableAlone) {
  const struct {
    const char *where, *why;
  } kGone[] = {{" > /dev/full", "No space left on device"},
               {" | true", "Broken pipe"},
               {" >&- < /dev/null", ""}};  // becomes /dev/null
  for (const auto& [where, why] : kGone) {
    const bool told = *why != '\0';
    const std::string command = kOutputRun + "--quiet --max-windows 4 " + all_files() + keep_;
    const Outcome outcome = run_mxlm(command + where);
    EXPECT_EQ(outcome.code, told ? 1 : 0) << where << outcome.err;
    expect_all_files();
    if (told) {
      EXPECT_THAT(outcome.err, HasSubstr(why));
      EXPECT_THAT(outcome.err, HasSubstr("All else was written. The result is kept in the journal"));
      const Outcome again = run_mxlm(command + "--resume");
      EXPECT_EQ(again.code, 0) << again.err;
      EXPECT_THAT(again.out, HasSubstr("mlp=mxfp4_e2m1"));
    }
    fs::remove_all(folder_.path());
    fs::create_directory(folder_.path());
  }
  // Without a journal the JSON still gives the rest.
  const Outcome outcome = run_mxlm(kOutputRun + "--quiet --max-windows 4 --no-journal --json " +
                                   quoted(folder_ / "o.json") + " > /dev/full");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("'mxlm report " + folder_ / "o.json" + "' makes pages and tables from the JSON."));
}

TEST_F(CliOutputs, ATerminalThatClosesCostsTheTableAlone) {
  for (const bool ignored : {true, false}) {
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_GE(terminal, 0);
    ASSERT_EQ(grantpt(terminal), 0);
    ASSERT_EQ(unlockpt(terminal), 0);
    const std::string name = ptsname(terminal);
    // Closed once the run has its first round; with SIGHUP ignored, as nohup and disown have it, the run goes on.
    std::thread closer([&] {
      const fs::path rounds = journal_ + "/rounds.mxj";
      std::error_code error;
      for (int i = 0; i < 3000 && (fs::file_size(rounds, error) < 100 || error); ++i) usleep(10'000);
      close(terminal);
    });
    const std::string script =
        folder_.file("tty.sh", std::string(ignored ? "trap '' HUP; " : "") + "exec setsid --wait --ctty \"$@\" <'" +
                                   name + "' >'" + name + "' 2>'" + name + "'\n");
    const Outcome outcome =
        run_mxlm(kOutputRun + fmt::format("--max-windows {} ", kLong) + all_files() + keep_, "bash " + script);
    closer.join();
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    expect_all_files();
    const json run = json::parse(slurp(folder_ / "out.json"))["runs"][0];
    EXPECT_EQ(run["complete"], ignored);
    EXPECT_GT(run["windows"], 0);
    fs::remove_all(journal_);
  }
}

TEST_F(CliOutputs, EachIsTriedInSpiteOfTheOthers) {
  const Outcome outcome = run_mxlm(kOutputRun + "--quiet --max-windows 4 --json /dev/full --csv /dev/full --html " +
                                   quoted(folder_ / "o.html") + " " + keep_);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--json: '/dev/full' could not be written"));
  EXPECT_THAT(outcome.err, HasSubstr("--csv: '/dev/full' could not be written"));
  EXPECT_THAT(outcome.out, HasSubstr("mlp=mxfp4_e2m1"));
  EXPECT_TRUE(fs::exists(folder_ / "o.html"));
}

TEST_F(CliOutputs, PathsAreTriedBeforeTheRunAndLeaveNothing) {
  folder_.file("file", "x");
  for (const std::string& command : {kOutputRun, std::string("sweep --formats mxfp4 "), std::string("suite quick ")}) {
    for (const char* option : {"--json", "--html", "--csv", "--markdown", "--per-token"}) {
      if (command == "suite quick " && std::string(option) == "--per-token") continue;  // refused for its runs
      for (const char* path : {"missing/o.csv", "file/o.csv"}) {
        // A data set that is missing would be the next thing to go wrong.
        const Outcome outcome = run_mxlm(command + "--data " + quoted(folder_ / "none.jsonl") + " " + option + " " +
                                         quoted(folder_ / path));
        EXPECT_EQ(outcome.code, 1);
        EXPECT_THAT(outcome.err, HasSubstr(path)) << command << option;
        EXPECT_THAT(outcome.err, Not(HasSubstr("none.jsonl"))) << command << option;
      }
    }
  }
  Outcome outcome = run_mxlm(kOutputRun + "--html " + quoted(folder_.path().string()));
  EXPECT_THAT(outcome.err, HasSubstr("is a folder where a file is to be written"));
  const std::string same = quoted(folder_ / "same.json");
  outcome = run_mxlm(kOutputRun + "--json " + same + " --html " + quoted(folder_ / "./same.json"));
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--json and --html name the same file"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);
}

TEST_F(CliOutputs, ARunWithoutAFinishedRoundLeavesWhatIsThere) {
  for (const char* name : {"out.json", "out.html", "out.csv", "out.markdown", "tokens.csv"}) folder_.file(name, "good");
  // One round, which takes seconds, and a signal right after it has begun.
  const std::string state = folder_ / "state";
  const Outcome outcome =
      run_mxlm("eval --device cpu --threads 1 --context 64 --shard-tokens 1000000 --mx linear=mxfp4 --mx mlp=mxfp6 " +
                   all_files() + "& pid=$!; " + wait_until("[ -e " + quoted(state) + "/mxlm/journals/*/plan.json ]") +
                   "sleep 0.2; kill -INT $pid; wait $pid",
               "export XDG_STATE_HOME=" + quoted(state) + ";");
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("no shard was finished: files of earlier results stay as they are"));
  for (const char* name : {"out.json", "out.html", "out.csv", "out.markdown", "tokens.csv"}) {
    EXPECT_EQ(slurp(folder_ / name), "good") << name;
  }
  EXPECT_TRUE(fs::is_empty(state + "/mxlm/journals"));
}

TEST_F(CliOutputs, WeightsThatAreOverwrittenEndTheRunBeforeThem) {
  const std::string model = own_model(), weights = quoted(model + "/model.safetensors");
  const std::string run = kOutputRun + fmt::format("--quiet --max-windows {} --json ", kLong) +
                          quoted(folder_ / "o.json") + " " + quoted(model) + " ";
  ASSERT_EQ(run_mxlm(run + "--no-journal").code, 0);
  const json peace = figures(folder_ / "o.json");
  const std::string hash = json::parse(slurp(folder_ / "o.json"))["runs"][0]["model"]["sha256"];
  for (const char* more : {"", "--stream "}) {
    fs::remove_all(journal_);
    fs::copy_file(kModel + "/model.safetensors", model + "/model.safetensors", fs::copy_options::overwrite_existing);
    const Outcome outcome =
        run_mxlm(run + more + keep_ + "& pid=$!; " + first_round() + "head -c 8000000 /dev/zero | dd of=" + weights +
                 " bs=1M seek=4 conv=notrunc status=none; wait $pid");
    EXPECT_EQ(outcome.code, 1);
    EXPECT_THAT(outcome.err, HasSubstr("model.safetensors' was changed during the run"));
    const json result = json::parse(slurp(folder_ / "o.json"))["runs"][0];
    EXPECT_EQ(result["complete"], false);
    EXPECT_THAT(result["stopped"].get<std::string>(), HasSubstr("was changed"));
    EXPECT_EQ(result["model"]["sha256"], hash);
    EXPECT_GT(result["windows"], 0);
    EXPECT_LT(result["windows"], kLong);
    // With the right file again all is as it would have been.
    fs::copy_file(kModel + "/model.safetensors", model + "/model.safetensors", fs::copy_options::overwrite_existing);
    const Outcome resumed = run_mxlm(run + more + keep_ + "--resume");
    EXPECT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(figures(folder_ / "o.json"), peace);
  }
}

TEST_F(CliOutputs, ANewNameModeOrDateOfTheSameWeightsIsNoChange) {
  const std::string model = own_model(), weights = quoted(model + "/model.safetensors");
  fs::copy_file(kModel + "/model.safetensors", folder_ / "other");
  const Outcome outcome =
      run_mxlm(kOutputRun + fmt::format("--quiet --max-windows {} ", kLong / 2) + quoted(model) + " --json " +
               quoted(folder_ / "o.json") + " " + keep_ + "& pid=$!; " + first_round() + "touch " + weights +
               "; chmod 600 " + weights + "; ln " + weights + " " + quoted(folder_ / "link") + "; mv " +
               quoted(folder_ / "other") + " " + weights + "; wait $pid");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json::parse(slurp(folder_ / "o.json"))["runs"][0]["complete"], true);
}

TEST_F(CliOutputs, WeightsThatAreCutEndInASentenceAndAGoodJournal) {
  const std::string model = own_model(), weights = model + "/model.safetensors";
  const std::string run =
      kOutputRun + fmt::format("--quiet --stream --max-windows {} ", kLong) + keep_ + quoted(model) + " ";
  const Outcome outcome =
      run_mxlm(run + "& pid=$!; " + first_round() + "truncate -s 100000 " + quoted(weights) + "; wait $pid");
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  // Between the rounds its size tells, within one the kernel does.
  EXPECT_THAT(outcome.err, testing::AnyOf(HasSubstr("model.safetensors' was cut while it was in use"),
                                          HasSubstr("model.safetensors' was changed during the run")));
  fs::copy_file(kModel + "/model.safetensors", weights, fs::copy_options::overwrite_existing);
  const Outcome resumed = run_mxlm(run + "--resume");
  EXPECT_EQ(resumed.code, 0) << resumed.err;
}

TEST_F(CliOutputs, CastAndLogitsNoticeWeightsThatAreOverwritten) {
  const std::string model = own_model(), weights = quoted(model + "/model.safetensors");
  const std::string pipe = quoted(folder_ / "pipe"), ids = folder_ / "ids.json";
  std::ofstream(ids) << json(std::vector(1, std::vector<int>(64, 1)));  // a megabyte of logits, more than a pipe holds
  const std::string spoil = "head -c 100000 /dev/zero | dd of=" + weights + " bs=1M seek=4 conv=notrunc status=none; ";
  for (const std::string& command :
       {"cast --format mxfp4 " + weights, "logits --device cpu --tokens " + quoted(ids) + " " + quoted(model)}) {
    for (const bool spoilt : {false, true}) {
      fs::copy_file(kModel + "/model.safetensors", model + "/model.safetensors", fs::copy_options::overwrite_existing);
      // The program opens its output once it has the weights, and waits there for a reader of the pipe. Were it to end
      // before that, `<>` lets the reader go.
      const Outcome outcome =
          run_mxlm(command + " -o " + pipe + "; code=$?; : <> " + pipe + "; exit $code) & pid=$!; " + "exec 3< " +
                       pipe + "; " + (spoilt ? spoil : "") + "cat <&3 > /dev/null; wait $pid",
                   "mkfifo " + pipe + " 2> /dev/null; (");
      EXPECT_EQ(outcome.code, spoilt ? 1 : 0) << command << outcome.err;
      if (spoilt) {
        EXPECT_THAT(outcome.err, HasSubstr("model.safetensors' was changed during the run")) << command;
      }
    }
  }
}

TEST_F(CliOutputs, MessagesDoNotGoIntoFilesWhereStandardStreamsAreClosed) {
  const std::string run = kOutputRun + "--max-windows 40 --journal " + quoted(journal_) + " " + all_files();
  ASSERT_EQ(run_mxlm(run).code, 0);
  const std::string tokens = slurp(folder_ / "tokens.csv");
  const json peace = figures(folder_ / "out.json");
  for (const char* closed : {"2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"}) {
    fs::remove_all(journal_);
    EXPECT_EQ(run_mxlm(run + closed).code, 0) << closed;
    EXPECT_EQ(slurp(folder_ / "tokens.csv"), tokens) << closed;
    EXPECT_EQ(figures(folder_ / "out.json"), peace) << closed;
    EXPECT_THAT(slurp(journal_ + "/lock"), testing::StartsWith("process ")) << closed;
  }
}

TEST_F(CliOutputs, AFileThatGrowsTooLargeIsAFullDisk) {
  const Outcome outcome = run_mxlm(kOutputRun + "--quiet --max-windows 8 --no-journal " + all_files(), "ulimit -f 4; ");
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("out.html' could not be written (File too large)"));
  EXPECT_FALSE(fs::exists(folder_ / "out.html"));
  EXPECT_TRUE(fs::exists(folder_ / "out.markdown"));
}

TEST_F(CliOutputs, ALogThatCannotBeWrittenIsTold) {
  const Outcome outcome = run_mxlm(kOutputRun + "--max-windows 2 --no-journal --log-file /dev/full");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("mxlm: warning: the log file '/dev/full' misses lines from here on"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("LOG ERROR")));
}

TEST_F(CliOutputs, ASignalEndsTokenisingWithinSeconds) {
  std::string text;
  const std::string book = slurp(MXLM_SOURCE_DIR "/data/alice.txt");
  for (int i = 0; i < 300; ++i) text += book;  // some 43 MB
  folder_.file("huge.txt", text);
  const Outcome outcome = run_mxlm(
      "eval --device cpu --quiet --threads 1 --no-journal --no-variants --text " + quoted(folder_ / "huge.txt") +
      " & pid=$!; sleep 1; a=$(date +%s%N); kill -TERM $pid; wait $pid; code=$?; echo $(( ($(date +%s%N) - a) / "
      "1000000 )); exit $code");
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_LT(std::stoi(outcome.out), 2000);
  // What is not needed is not tokenised, which would take seconds; the hash is of the whole text all the same.
  const Outcome few =
      run_mxlm("eval --device cpu --quiet --no-journal --no-variants --context 64 --max-windows 2 --text " +
               quoted(folder_ / "huge.txt") + " --json -");
  ASSERT_EQ(few.code, 0) << few.err;
  const json run = json::parse(few.out)["runs"][0];
  const Outcome sum = run_mxlm("--version > /dev/null; sha256sum " + quoted(folder_ / "huge.txt"));
  EXPECT_EQ(run["data"]["sha256"], sum.out.substr(0, 64));
  const Outcome whole = run_mxlm(
      "eval --device cpu --quiet --no-journal --no-variants --context 64 --max-windows 2 "
      "--text " MXLM_SOURCE_DIR "/data/alice.txt --json -");
  EXPECT_EQ(run["variants"][0]["ppl"], json::parse(whole.out)["runs"][0]["variants"][0]["ppl"]);
}

TEST_F(CliOutputs, AJournalThatIsRemovedIsMadeAgain) {
  const std::string run =
      kOutputRun + fmt::format("--max-windows {} ", kLong / 2) + keep_ + "--json " + quoted(folder_ / "o.json") + " ";
  const Outcome outcome = run_mxlm(run + "& pid=$!; " + first_round() + "rm -rf " + quoted(journal_) + "; wait $pid");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("somebody has removed or replaced the journal's"));
  const json peace = figures(folder_ / "o.json");
  const Outcome resumed = run_mxlm(run + "--resume");
  EXPECT_THAT(resumed.err, HasSubstr(fmt::format("{0} of {0} windows are in the journal", kLong / 2)));
  EXPECT_EQ(figures(folder_ / "o.json"), peace);
}

TEST_F(CliOutputs, FoldersOfUnnamedJournalsAreTheUsersAlone) {
  const std::string state = folder_ / "a/state";
  ASSERT_EQ(
      run_mxlm(kOutputRun + "--quiet --max-windows 2", "umask 0; export XDG_STATE_HOME=" + quoted(state) + ";").code,
      0);
  for (const char* folder : {"/mxlm/journals", "/mxlm", ""}) {
    EXPECT_EQ(fs::status(state + folder).permissions(), fs::perms::owner_all) << folder;
  }
}

}  // namespace
}  // namespace mxlm
