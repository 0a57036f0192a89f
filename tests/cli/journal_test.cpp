// Runs that are ended and resumed, with the program as a user has it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "figures.hpp"
#include "run_mxlm.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

const std::string kJournalRun = "eval --device cpu --max-windows 12 --context 64 --shard-tokens 128 ";

class CliJournal : public testing::Test {
 protected:
  Outcome run(const std::string& more, const std::string& environment = "") {
    return run_mxlm(kJournalRun + more + " --json '" + folder_ / "out.json" + "'", environment);
  }
  [[nodiscard]] json out() const { return figures(folder_ / "out.json"); }
  /// Leaves the journal's header and its first records: `share` of its bytes.
  void tear(double share) const {
    const fs::path rounds = fs::path(journal_) / "rounds.mxj";
    fs::resize_file(rounds, static_cast<uintmax_t>(static_cast<double>(fs::file_size(rounds)) * share));
  }
  Folder folder_;
  std::string journal_ = folder_ / "journal";
  std::string keep_ = "--journal '" + journal_ + "' ";
};

TEST_F(CliJournal, AResumedRunHasTheSameDigitsHoweverItIsCut) {
  const std::string variants = "--mx mlp=mxfp4 --mx linear=mxfp8 ";
  ASSERT_EQ(run(variants + "--no-journal").code, 0);
  const json peace = out();
  ASSERT_EQ(run(variants + keep_).code, 0);
  EXPECT_EQ(out(), peace);
  for (const char* how : {"--threads 1", "--batch-size 1", "--stream --threads 2 --shard-tokens 64"}) {
    tear(0.6);
    const Outcome resumed = run(variants + keep_ + "--resume " + how);
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_THAT(resumed.err, HasSubstr("of 12 windows are in the journal"));
    EXPECT_EQ(out(), peace) << how;
  }
  // Nothing is left to run.
  const Outcome again = run(variants + keep_ + "--resume");
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("12 of 12 windows are in the journal"));
  EXPECT_EQ(out(), peace);
}

TEST_F(CliJournal, VariantsMayBeAddedToAFinishedRun) {
  ASSERT_EQ(run("--mx mlp=mxfp4 --mx mlp=mxint8 --mx linear=mxfp8 --no-journal").code, 0);
  const json all = out();
  ASSERT_EQ(run("--mx mlp=mxfp4 " + keep_).code, 0);
  // Not to one that is not finished.
  tear(0.6);
  const Outcome early = run("--mx mlp=mxfp4 --mx mlp=mxint8 --resume " + keep_);
  EXPECT_EQ(early.code, 1);
  EXPECT_THAT(early.err, HasSubstr("baseline + mlp=mxfp4_e2m1 there, baseline + mlp=mxfp4_e2m1 + mlp=mxint8 now"));
  ASSERT_EQ(run("--mx mlp=mxfp4 --resume " + keep_).code, 0);
  const Outcome more = run("--mx mlp=mxfp4 --mx mlp=mxint8 --mx linear=mxfp8 --resume " + keep_);
  ASSERT_EQ(more.code, 0) << more.err;
  EXPECT_EQ(out(), all);
  // In another order, and fewer of them, from what is there.
  ASSERT_EQ(run("--mx linear=mxfp8 --mx mlp=mxfp4 --resume " + keep_).code, 0);
  EXPECT_EQ(out()[0]["variants"][1], all[0]["variants"][3]);
  EXPECT_EQ(out()[0]["variants"][2], all[0]["variants"][1]);
  ASSERT_EQ(run("--no-variants --resume " + keep_).code, 0);
  EXPECT_EQ(out()[0]["variants"][0], all[0]["variants"][0]);
}

TEST_F(CliJournal, TheSecondPassIsKeptToo) {
  ASSERT_EQ(run("--mx mlp=mxfp4 --noise --no-journal").code, 0);
  const json peace = out();
  ASSERT_EQ(run("--mx mlp=mxfp4 --noise " + keep_).code, 0);
  tear(0.8);
  ASSERT_EQ(run("--mx mlp=mxfp4 --noise --resume " + keep_).code, 0);
  EXPECT_EQ(out(), peace);
}

TEST_F(CliJournal, AnotherRunIsRefused) {
  ASSERT_EQ(run("--no-variants " + keep_).code, 0);
  const Outcome twice = run("--no-variants " + keep_);
  EXPECT_EQ(twice.code, 1);
  EXPECT_THAT(twice.err, HasSubstr("--resume"));
  const std::string text = folder_.file("other.txt", "Another text, of which there is more than one window of tokens.");
  const Outcome other = run("--no-variants --resume " + keep_ + "--text '" + text + "'");
  EXPECT_EQ(other.code, 1);
  EXPECT_THAT(other.err, HasSubstr("data: '"));
  const Outcome dtype = run("--no-variants --resume --dtype float32 " + keep_);
  EXPECT_EQ(dtype.code, 1);
  EXPECT_THAT(dtype.err, HasSubstr("dtype: 'bfloat16' there, 'float32' now"));
  EXPECT_EQ(run("--no-variants --resume --no-journal").code, 2);
}

/// Writes a LoRA adapter of rank 1 of the embedded model, whose factors are all `value`, into `folder`.
void write_adapter(const fs::path& folder, float value) {
  std::ifstream config(MXLM_SOURCE_DIR "/models/booklet-7m/config.json");
  const auto hidden = json::parse(config)["hidden_size"].get<size_t>();
  const std::string at = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  const size_t bytes = hidden * sizeof(float);
  const json header = {
      {at + "A.weight", {{"dtype", "F32"}, {"shape", {1, hidden}}, {"data_offsets", {0, bytes}}}},
      {at + "B.weight", {{"dtype", "F32"}, {"shape", {hidden, 1}}, {"data_offsets", {bytes, 2 * bytes}}}}};
  const std::string text = header.dump();
  const uint64_t length = text.size();
  const std::vector<float> values(2 * hidden, value);
  fs::create_directories(folder);
  std::ofstream(folder / "adapter_config.json")
      << R"({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]})";
  std::ofstream weights(folder / "adapter_model.safetensors", std::ios::binary);
  weights.write(reinterpret_cast<const char*>(&length), sizeof length);
  weights << text;
  weights.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(2 * bytes));
}

TEST_F(CliJournal, BelongsToOneAdapter) {
  const std::string first = folder_ / "first", second = folder_ / "second";
  write_adapter(first, 0.1F);
  write_adapter(second, 0.2F);
  const auto model = [&] { return json::parse(slurp(folder_ / "out.json"))["runs"][0]["model"]; };
  ASSERT_EQ(run("--mx mlp=mxfp4 --no-journal").code, 0);
  const json plain = out();
  EXPECT_FALSE(model().contains("adapter"));
  ASSERT_EQ(run("--mx mlp=mxfp4 --adapter '" + first + "' " + keep_).code, 0);
  const json peace = out();
  const json adapter = model()["adapter"];
  EXPECT_EQ(adapter["name"], first);
  EXPECT_EQ(adapter["sha256"].get<std::string>().size(), 64U);
  EXPECT_NE(peace[0]["variants"][0]["ppl"], plain[0]["variants"][0]["ppl"]);
  tear(0.6);
  for (const std::string& other : {"--adapter '" + second + "' ", std::string()}) {
    const Outcome refused = run("--mx mlp=mxfp4 --resume " + other + keep_);
    EXPECT_EQ(refused.code, 1);
    EXPECT_THAT(refused.err, HasSubstr("adapter: '" + adapter["sha256"].get<std::string>()));
  }
  const Outcome resumed = run("--mx mlp=mxfp4 --resume --adapter '" + first + "' " + keep_);
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("of 12 windows are in the journal"));
  EXPECT_EQ(out(), peace);
}

TEST_F(CliJournal, WithoutAFolderItLiesInTheStateAndGoesWhenDone) {
  const std::string state = "export XDG_STATE_HOME='" + folder_ / "state" + "'; ";
  const fs::path journals = fs::path(folder_ / "state") / "mxlm" / "journals";
  ASSERT_EQ(run("--no-variants", state).code, 0);
  EXPECT_TRUE(fs::is_empty(journals));
  // Ended by a signal it stays; --resume finds it. The signal comes when the first of 200 rounds are there.
  const std::string script = folder_.file(
      "term.sh", "\"$@\" & pid=$!; " + wait_until(a_record_in(quoted(journals.string()) + "/*/rounds.mxj")) +
                     "kill -TERM $pid; wait $pid\n");
  const std::string many = "eval --device cpu --context 64 --shard-tokens 128 --max-windows 400 --no-variants";
  const Outcome killed = run_mxlm(many, state + "bash '" + script + "'");
  EXPECT_EQ(killed.code, 130) << killed.err;
  EXPECT_EQ(std::distance(fs::directory_iterator(journals), fs::directory_iterator()), 1);
  EXPECT_THAT(killed.err, HasSubstr("--resume"));
  const Outcome resumed = run_mxlm(many + " --resume", state);
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("windows are in the journal"));
  EXPECT_TRUE(fs::is_empty(journals));
  // Where it cannot be, the run goes on without.
  const Outcome without = run("--no-variants", "export XDG_STATE_HOME=/proc/nowhere; ");
  EXPECT_EQ(without.code, 0);
  EXPECT_THAT(without.err, HasSubstr("keeps no journal"));
}

TEST_F(CliJournal, AFullDiskCostsTheJournalAlone) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  ASSERT_EQ(run("--no-variants --no-journal").code, 0);
  const json peace = out();
  // Past this size the kernel refuses to write: EFBIG, since SIGXFSZ is ignored.
  const Outcome full = run("--no-variants --quiet " + keep_, "trap '' XFSZ; ulimit -f 8; ");
  EXPECT_EQ(full.code, 1) << full.err;
  EXPECT_THAT(full.err, HasSubstr("the journal's"));
  EXPECT_EQ(out(), peace);
}

}  // namespace
}  // namespace mxlm
