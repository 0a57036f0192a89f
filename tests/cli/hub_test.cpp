// Models and data sets by name, with a hub on the loopback device.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "../hub/hub_server.hpp"
#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

std::map<std::string, std::string> booklet() {
  std::map<std::string, std::string> files;
  for (const std::string name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    files[name] = slurp(kModel + "/" + name);
  }
  return files;
}

class ByName : public testing::Test {
 protected:
  ByName() : hub_("tester/booklet", booklet()) {
    folder_.file("text.txt", "Alice was beginning to get very tired of sitting by her sister on the bank.\n");
  }
  [[nodiscard]] std::string environment(const std::string& endpoint, const std::string& more = "") const {
    return "env -u HF_HUB_CACHE -u HF_HUB_OFFLINE -u http_proxy HF_HOME='" + (folder_ / "hf") + "' HF_ENDPOINT='" +
           endpoint + "' HF_TOKEN=" + kToken + " " + more;
  }
  Outcome run(const std::string& arguments, const std::string& more = "") const {
    const Outcome outcome =
        run_mxlm(arguments + " --log-file '" + (folder_ / "log") + "'", environment(hub_.url(), more));
    for (const std::string& text : {outcome.out, outcome.err, slurp(folder_ / "log")}) {
      EXPECT_THAT(text, Not(HasSubstr("Secret")));
      EXPECT_THAT(text, Not(HasSubstr("signature")));
    }
    return outcome;
  }
  [[nodiscard]] fs::path repo() const { return folder_.path() / "hf/hub/models--tester--booklet"; }
  [[nodiscard]] fs::path partial() const {
    return repo() / "blobs" / (hub::lfs_hash(hub_.file("model.safetensors")) + ".incomplete");
  }
  [[nodiscard]] std::string eval() const {
    return "eval tester/booklet --no-variants --text '" + (folder_ / "text.txt") + "' --json '" +
           (folder_ / "out.json") + "'";
  }

  /// Starts a fetch of its own and waits until some of the weights are there.
  [[nodiscard]] pid_t start_slow_fetch() {
    hub_.twist([](const hub::Seen&, bool cdn, hub::Reply& reply) {
      if (cdn) reply.pause = std::chrono::milliseconds(20);
    });
    const std::string cache = folder_ / "hf", endpoint = hub_.url();
    const pid_t child = fork();
    if (child == 0) {
      setenv("HF_HOME", cache.c_str(), 1);
      setenv("HF_ENDPOINT", endpoint.c_str(), 1);
      unsetenv("HF_HUB_CACHE");
      unsetenv("HF_HUB_OFFLINE");
      const int null = open("/dev/null", O_WRONLY);
      dup2(null, STDOUT_FILENO);
      dup2(null, STDERR_FILENO);
      execl(MXLM_BINARY, "mxlm", "fetch", "tester/booklet", nullptr);
      _exit(127);
    }
    std::error_code error;
    for (int i = 0; i < 1000 && (!fs::exists(partial(), error) || fs::file_size(partial(), error) == 0); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return child;
  }
  /// The rest is fetched, and not what was there.
  void expect_resumed() {
    const auto there = fs::file_size(partial());
    EXPECT_GT(there, 0);
    hub_.twist(nullptr);
    const Outcome outcome = run("fetch tester/booklet");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(hub_.cdn().seen().back().header("range"), "bytes=" + std::to_string(there) + "-");
    EXPECT_EQ(slurp(repo() / "snapshots" / hub_.commit() / "model.safetensors"), hub_.file("model.safetensors"));
  }

  hub::FakeHub hub_;
  Folder folder_;
};

TEST_F(ByName, EvalDownloadsOnceAndThenNeedsNoNetwork) {
  const Outcome first = run(eval());
  ASSERT_EQ(first.code, 0) << first.err;
  const json model = json::parse(slurp(folder_ / "out.json"))["runs"][0]["model"];
  EXPECT_EQ(model["name"], "tester/booklet");
  EXPECT_EQ(model["revision"], hub_.commit());
  const size_t requests = hub_.hub().seen().size();
  EXPECT_EQ(run(eval(), "HF_HUB_OFFLINE=1").code, 0);
  EXPECT_EQ(run(eval()).code, 0);
  EXPECT_EQ(run("inspect tester/booklet@" + hub_.commit()).code, 0);
  EXPECT_EQ(hub_.hub().seen().size(), requests);
  // The folder of the snapshot is known for what it is.
  EXPECT_THAT(run("inspect '" + (repo() / "snapshots" / hub_.commit()).string() + "'").out,
              testing::StartsWith("tester/booklet:"));
}

TEST_F(ByName, ATokenizerComesAlone) {
  const Outcome outcome = run("tokenize tester/booklet --text '" + (folder_ / "text.txt") + "'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, run("tokenize '" + kModel + "' --text '" + (folder_ / "text.txt") + "'").out);
  EXPECT_EQ(hub_.cdn().seen().size(), 0);
  EXPECT_EQ(run(eval()).code, 0);  // the rest comes when it is needed
}

TEST_F(ByName, FetchSaysWhereAndDryRunWhat) {
  const Outcome dry = run("fetch tester/booklet --dry-run");
  EXPECT_EQ(dry.code, 0);
  EXPECT_THAT(dry.out, HasSubstr("model.safetensors"));
  EXPECT_THAT(dry.out, HasSubstr("3 files, "));
  EXPECT_FALSE(fs::exists(folder_ / "hf"));
  const Outcome outcome = run("fetch tester/booklet");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, (repo() / "snapshots" / hub_.commit()).string() + "\n");
  EXPECT_THAT(run("fetch tester/booklet --dry-run").out, HasSubstr(" 0.0 MB to download"));
}

TEST_F(ByName, CtrlCIsPromptAndLosesNothing) {
  const pid_t child = start_slow_fetch();
  const auto start = std::chrono::steady_clock::now();
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  expect_resumed();
}

TEST_F(ByName, AKilledDownloadIsGoneOnWith) {
  const pid_t child = start_slow_fetch();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  expect_resumed();
}

TEST_F(ByName, MistakesAreOneSentence) {
  const auto refusal = [this](const std::string& arguments, int code, const std::string& part,
                              const std::string& more = "") {
    const Outcome outcome = run("--quiet " + arguments, more);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(outcome.out, "");
  };
  refusal("eval llama3.1-8b", 1, "'llama-3.1-8b'");
  refusal("eval tester/nothing", 1, "shows no model 'tester/nothing'");
  refusal("eval microsoft/phi-1_6", 1, "Did you mean 'microsoft/phi-1_5'?");
  refusal("eval tester/booklet@v9", 1, "no revision 'v9'");
  refusal("eval tester/booklet", 1, "HF_HUB_OFFLINE", "HF_HUB_OFFLINE=1");
  refusal("eval tester/booklet", 1, "HF_ENDPOINT", "HF_ENDPOINT=ftp://x");
  refusal("eval --data pyle", 2, "'pile'");
  refusal("eval --data pile:tset", 2, "train/00");
  refusal("eval --data wikitext2:test:Github", 2, "subsets");
  refusal("eval --data '" + (folder_ / "text.txt") + ":test'", 2, "one file");
  refusal("fetch nothing", 2, "org/name");
  refusal("suite huge", 2, "quick, medium, large");
  // Neither the Pile nor WikiText on this hub.
  refusal("eval --data pile", 1, "Neither the Pile nor WikiText-2");
}

TEST_F(ByName, ThePileWithSplitsAndSubsets) {
  hub::FakeHub pile("monology/pile-uncopyrighted",
                    {{"test.jsonl.zst", slurp(fs::path(MXLM_TEST_DATA) / "io/documents.jsonl.zst")}}, "datasets");
  const std::string common = "eval --no-variants --json '" + (folder_ / "out.json") + "' --data ";
  const auto data = [&](const std::string& what, const std::string& more = "") {
    const Outcome outcome = run_mxlm(common + what, environment(pile.url(), more));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, Not(HasSubstr("WIKITEXT")));
    return json::parse(slurp(folder_ / "out.json"))["runs"][0]["data"];
  };
  EXPECT_EQ(data("pile")["documents"], 6);
  EXPECT_EQ(data("pile")["name"], "pile:test");
  EXPECT_EQ(data("pile --max-samples 2", "HF_HUB_OFFLINE=1")["documents"], 2);
  const json subset = data("'pile:test:Wikipedia (en)'");
  EXPECT_EQ(subset["documents"], 1);
  EXPECT_EQ(subset["name"], "pile:test:Wikipedia (en)");
  EXPECT_EQ(pile.cdn().count("GET", "test.jsonl.zst"), 1);
  const Outcome outcome = run_mxlm("eval --data pile:test:Wikipedia", environment(pile.url()));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("Books3, Wikipedia (en)"));
  EXPECT_EQ(run_mxlm("eval --data pile:val", environment(pile.url())).code, 1);
}

TEST_F(ByName, SuitesGoOnAfterAModelThatFails) {
  const Outcome dry = run("suite quick --dry-run --tier A --data pile");
  EXPECT_EQ(dry.code, 0) << dry.err;
  for (const char* part : {"tinystories-33m", "qwen1.5-0.5b", "phi-1_5", "3 models", "mlp=mxfp8_e4m3", "data: pile"}) {
    EXPECT_THAT(dry.out, HasSubstr(part));
  }
  std::istringstream lines(dry.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80) << line;
  const Outcome outcome = run("suite quick --text '" + (folder_ / "text.txt") + "'", "HF_HUB_OFFLINE=1");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("3 of 3 models could not be evaluated"));
  EXPECT_THAT(outcome.err, HasSubstr("phi-1_5: The model 'microsoft/phi-1_5' is not in the cache"));
}

TEST_F(ByName, TheRegistry) {
  const Outcome table = run("models");
  EXPECT_EQ(table.code, 0);
  std::istringstream lines(table.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80) << line;
  const json models = json::parse(run("models --json").out)["models"];
  EXPECT_EQ(models.size(), 12);
  for (const json& model : models) {
    EXPECT_THAT(table.out, HasSubstr(model["name"].get<std::string>()));
    EXPECT_FALSE(model["cached"].get<bool>());
  }
  size_t before = 0;
  for (const char* suite : {"quick", "medium", "large", "full"}) {
    const std::string plan = run(std::string("suite ") + suite + " --dry-run").out;
    const size_t count = std::stoul(plan.substr(plan.find(" models, ") - 2));
    EXPECT_GT(count, before);
    before = count;
  }
  EXPECT_EQ(before, 11);
}

// Each model of the registry by its short name, from a hub that has its layout: a small checkpoint of its family, and a
// tokenizer_config.json as most of them have.
TEST_F(ByName, EveryModelOfTheRegistryIsEvaluated) {
  std::string vocabulary = "\"?\":0,\"<s>\":1,\"</s>\":2,\" \":3";
  for (char c = 'a'; c <= 'z'; ++c) {
    vocabulary += std::string(",\"") + c + "\":" + std::to_string(4 + c - 'a');
  }
  const std::string tokenizer = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],)"
                                R"("normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,)"
                                R"("model":{"type":"BPE","unk_token":"?","fuse_unk":false,"vocab":{)" +
                                vocabulary + R"(},"merges":[]}})";
  const json models = json::parse(run("models --json").out)["models"];
  ASSERT_EQ(models.size(), 12);
  for (const json& model : models) {
    const auto name = model["name"].get<std::string>();
    SCOPED_TRACE(name);
    const bool longrope = name.ends_with("-128k");
    const fs::path family =
        fs::path(MXLM_TEST_DATA) / "families" / (longrope ? "phi3_longrope" : model["family"].get<std::string>());
    const hub::FakeHub hub(model["id"].get<std::string>(),
                           {{"config.json", slurp(family / "config.json")},
                            {"model.safetensors", slurp(family / "model.safetensors")},
                            {"tokenizer.json", tokenizer},
                            {"tokenizer_config.json", R"({"model_max_length": 1000000000000000019884624838656})"}});
    const std::string eval = "eval " + name + " --no-variants --max-windows 1 --context 16 --text '" +
                             (folder_ / "text.txt") + "' --json '" + (folder_ / "out.json") + "'";
    const Outcome outcome = run_mxlm(eval, environment(hub.url()));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const json out = json::parse(slurp(folder_ / "out.json"))["runs"][0];
    EXPECT_EQ(out["model"]["name"], model["id"]);
    EXPECT_EQ(out["model"]["revision"], hub.commit());
    EXPECT_GT(out["variants"][0]["nll"].get<double>(), 0);
  }
}

}  // namespace
}  // namespace mxlm
