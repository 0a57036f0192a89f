// The habits of users: old flags, help, completion, manual, near misses, several runs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Names = std::vector<std::string>;

const std::string kOneWindow = "--quiet --max-windows 1 --context 32 ";

/// Names of the variants after the baseline.
Names variants(const std::string& arguments) {
  const Outcome outcome = run_mxlm("eval " + kOneWindow + arguments + " --json -");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  Names names;
  const json result = json::parse(outcome.out);
  for (const json& v : result["runs"][0]["variants"]) names.push_back(v["name"]);
  EXPECT_EQ(names.at(0), "baseline");
  names.erase(names.begin());
  return names;
}

TEST(Habits, StagesOfThePrototype) {
  EXPECT_EQ(variants("--full_pipeline --min_free_ratio 0.9 --workers_per_device 3"),
            (Names{"bf16", "bfp16", "int8", "fp8-emulation", "fp8-unscaled", "fp8-backend",
                   "attention=mxfp8_e4m3,mlp=mxfp8_e4m3"}));
  EXPECT_EQ(variants("--full_pipeline --skip_bfp16 --skip_int8 --skip_nvfp8_emulation --mlp_only --skip_mx"),
            (Names{"bf16", "fp8-backend"}));
  EXPECT_EQ(variants("--skip_mx --skip_bf16 --mx_format fp4_e2m1"), Names{});
  EXPECT_EQ(run_mxlm("eval --quiet --skip-mx --mx mlp=mxfp4").code, 2);
  EXPECT_EQ(run_mxlm("eval --quiet --min-free-ratio 1.5").code, 2);
}

TEST(Habits, DevicesAreNamedOrTheirLackIs) {
  EXPECT_EQ(run_mxlm("eval --quiet --device cpu --gemm fast").code, 1);
  EXPECT_THAT(run_mxlm("eval --quiet --device cpu --gemm fast").err, HasSubstr("exact"));
  EXPECT_EQ(run_mxlm("eval --quiet --gemm faster").code, 2);
  for (const char* command : {"eval --quiet", "suite quick --quiet", "sweep --quiet", "inspect"}) {
    EXPECT_EQ(run_mxlm(std::string(command) + " --device cuda:").code, 2) << command;
    EXPECT_EQ(run_mxlm(std::string(command) + " --device gpu").code, 2) << command;
  }
  // No machine has that many.
  const auto many = run_mxlm("eval --quiet --device cuda:999 --max-windows 1");
  EXPECT_EQ(many.code, 1);
  EXPECT_THAT(many.err, HasSubstr("GPU"));
  EXPECT_THAT(run_mxlm("inspect --device cpu").out, HasSubstr("on cpu"));
}

TEST(Habits, WithoutAGpuTheCpuComputesAndSaysWhy) {
  const std::string hidden = "CUDA_VISIBLE_DEVICES=";  // of machines that have one
  const auto of_the_build = [](const std::string& text) {
    return text.find("this build has no CUDA backend") != std::string::npos;
  };
  const Outcome named = run_mxlm("eval --quiet --device cuda --max-windows 1 --context 32", hidden);
  EXPECT_EQ(named.code, 1);
  EXPECT_EQ(named.out, "");
  EXPECT_THAT(named.err, testing::MatchesRegex("mxlm: There is no GPU for --device cuda: [^\n]*; use --device cpu.\n"));
  EXPECT_EQ(of_the_build(named.err), !MXLM_WITH_CUDA) << named.err;

  const Outcome automatic = run_mxlm("eval --device auto --no-variants --max-windows 1 --context 32 --json -", hidden);
  ASSERT_EQ(automatic.code, 0) << automatic.err;
  EXPECT_THAT(json::parse(automatic.out)["machine"]["backend"].get<std::string>(), testing::StartsWith("cpu"));
  std::istringstream lines(automatic.err);
  std::vector<std::string> reasons;
  for (std::string line; std::getline(lines, line);) {
    if (line.find("on the CPU") != std::string::npos) reasons.push_back(line);
  }
  ASSERT_EQ(reasons.size(), 1U) << automatic.err;
  EXPECT_THAT(reasons[0], HasSubstr("computing on the CPU: "));
  EXPECT_EQ(of_the_build(reasons[0]), !MXLM_WITH_CUDA) << reasons[0];
}

TEST(Habits, TheLastOfAScalarCounts) {
  const Outcome outcome = run_mxlm("eval " + kOneWindow + "--no-variants --context 16 --context 8 --json -");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json::parse(outcome.out)["runs"][0]["protocol"]["context"], 8);
}

TEST(Habits, RunsAreModelsTimesDataAndOneThatFailsCostsNone) {
  const Folder folder;
  const std::string a = folder.file("a.jsonl", "{\"text\": \"Alice was beginning to get very tired.\"}\n");
  const std::string b = folder.file("b.jsonl", "{\"text\": \"Down, down, down. Would the fall never end?\"}\n");
  const std::string data = " --quiet --no-variants --datasets " + a + " " + b;
  const Outcome good = run_mxlm("eval " + kModel + data + " --json -");
  ASSERT_EQ(good.code, 0) << good.err;
  const json runs = json::parse(good.out)["runs"];
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_NE(runs[0]["data"]["sha256"], runs[1]["data"]["sha256"]);
  const Outcome half = run_mxlm("eval /no/such/model " + kModel + data + " --json " + (folder / "out.json"));
  EXPECT_EQ(half.code, 1);
  EXPECT_THAT(half.err, HasSubstr("2 of 4 runs could not be evaluated"));
  EXPECT_EQ(json::parse(slurp(folder / "out.json"))["runs"].size(), 2U);
  EXPECT_THAT(half.out, HasSubstr("b.jsonl"));
}

TEST(Habits, ConfigHoldsTheNewOptions) {
  const Folder folder;
  const std::string config =
      folder.file("c.toml", "full_pipeline = true\nskip_int8 = true\nmin_free_ratio = 0.5\nskip-mx = true\n");
  EXPECT_EQ(variants("--config " + config), (Names{"bf16", "bfp16", "fp8-emulation", "fp8-unscaled", "fp8-backend"}));
  const Outcome suite = run_mxlm("suite quick --dry-run --config " + config);
  EXPECT_THAT(suite.out, HasSubstr("fp8-backend"));
}

TEST(Habits, NearNamesAreSuggested) {
  const auto suggests = [](const std::string& arguments, const std::string& name) {
    const Outcome outcome = run_mxlm(arguments);
    EXPECT_NE(outcome.code, 0) << arguments;
    EXPECT_THAT(outcome.err, HasSubstr("id you mean '" + name + "'?")) << arguments;
  };
  suggests("evl", "eval");
  suggests("eval --quiet --contxt 3", "--context");
  suggests("eval --quiet --max_sample=3", "--max-samples");
  suggests("eval --quiet --protocol windw", "window");
  suggests("eval --quiet --mx mlp=mxpf4", "mxfp4");
  suggests("eval --quiet --mx mpl=mxfp4", "mlp");
  suggests("eval --quiet --tier alll", "all");
  suggests("eval --quiet llama-3.1-8", "llama-3.1-8b");
  suggests("suite quik", "quick");
  suggests("completion bsh", "bash");
}

TEST(Habits, HelpFits80Columns) {
  for (const char* command : {"", "eval", "suite", "sweep", "inspect", "logits", "cast", "tokenize", "models", "fetch",
                              "formats", "bench", "report", "completion", "man"}) {
    const Outcome outcome = run_mxlm(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0);
    EXPECT_EQ(outcome.out.find(" TEXT"), std::string::npos) << outcome.out;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80U) << line;
  }
}

TEST(Habits, BashCompletes) {
  const auto complete = [](const std::string& words) {
    const Folder folder;
    const std::string script = folder.file(
        "complete.sh", "source <('" MXLM_BINARY "' completion bash)\nCOMP_WORDS=(" + words +
                           ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_mxlm\nprintf '%s ' \"${COMPREPLY[@]}\"\n");
    return run_mxlm("--version > /dev/null && bash '" + script + "'").out;
  };
  EXPECT_EQ(complete("mxlm ev"), "eval ");
  EXPECT_EQ(complete("mxlm eval --all"), "--allow-long-context --all-linears ");
  EXPECT_EQ(complete("mxlm eval --protocol ll"), "llamacpp ");
  EXPECT_EQ(complete("mxlm eval --protocol = ll"), "llamacpp ");
  EXPECT_EQ(complete("mxlm eval --models phi-1_5 llama"), "llama-3.1-8b ");
  EXPECT_EQ(complete("mxlm eval --mx att"), "attention= ");
  EXPECT_EQ(complete("mxlm eval --mx mlp = mxfp4"), "mxfp4_e2m1 mxfp4 ");
  EXPECT_EQ(complete("mxlm suite m"), "medium ");
  EXPECT_EQ(complete("mxlm eval --context 8 qwen1"), "qwen1.5-0.5b ");
  EXPECT_EQ(complete("mxlm eval --config '" MXLM_SOURCE_DIR "/READ'"), MXLM_SOURCE_DIR "/README.md ");
}

TEST(Habits, ManualRendersWithoutWarnings) {
  const Outcome page = run_mxlm("man");
  ASSERT_EQ(page.code, 0) << page.err;
  EXPECT_THAT(page.out, HasSubstr("\\-\\-workers\\-per\\-device"));
  if (std::system("command -v groff > /dev/null") != 0) GTEST_SKIP() << "no groff";
  const Outcome rendered = run_mxlm("man | groff -man -Tutf8 -ww -rLL=80n -P-cbou");
  EXPECT_EQ(rendered.code, 0);
  EXPECT_EQ(rendered.err, "");
  EXPECT_THAT(rendered.out, HasSubstr("SYNOPSIS"));
}

}  // namespace
}  // namespace mxlm
