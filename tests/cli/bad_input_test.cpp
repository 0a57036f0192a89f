// What a user can get wrong ends in one sentence and exit code 1 or 2.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

/// A copy of the small model that a test may damage.
class BadModel : public testing::Test {
 protected:
  BadModel() {
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
      fs::copy_file(fs::path(kModel) / name, folder_.path() / name);
    }
    folder_.file("text.txt", "Alice was beginning to get very tired of sitting by her sister on the bank.\n");
  }
  std::string eval() const {
    return "eval '" + folder_.path().string() + "' --text '" + (folder_ / "text.txt") + "' --no-variants --quiet";
  }
  void rewrite(const std::string& name, const std::string& from, const std::string& to) const {
    std::string text = slurp(folder_ / name);
    const size_t at = text.find(from);
    ASSERT_NE(at, text.npos) << from;
    folder_.file(name, text.replace(at, from.size(), to));
  }
  Folder folder_;
};

/// One line on stderr from the program, ending as a sentence does, and nothing on stdout.
void expect_refusal(const Outcome& outcome, int code, const std::string& part) {
  EXPECT_EQ(outcome.code, code) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("mxlm: ")) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(part));
  EXPECT_EQ(outcome.out, "");
}

TEST_F(BadModel, TheCopyItselfIsFine) {
  const Outcome outcome = run_mxlm(eval());
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out, "");
}

TEST_F(BadModel, MissingAndEmptyFolders) {
  expect_refusal(run_mxlm("eval --quiet '" + (folder_ / "nowhere") + "'"), 1, "nowhere");
  fs::create_directory(folder_.path() / "empty");
  expect_refusal(run_mxlm("eval --quiet '" + (folder_ / "empty") + "'"), 1, "empty");
}

TEST_F(BadModel, TruncatedWeights) {
  fs::resize_file(folder_.path() / "model.safetensors", 1'000'000);
  expect_refusal(run_mxlm(eval()), 1, "truncated");
}

TEST_F(BadModel, HeaderLengthOf2To63) {
  std::string bytes = slurp(folder_ / "model.safetensors");
  const uint64_t length = uint64_t{1} << 63;
  std::memcpy(bytes.data(), &length, sizeof length);
  folder_.file("model.safetensors", bytes);
  expect_refusal(run_mxlm(eval()), 1, "9223372036854775808");
}

TEST_F(BadModel, OverlappingTensors) {
  // The second tensor of the header moved onto the first: same size of header, other digits.
  std::string bytes = slurp(folder_ / "model.safetensors");
  const size_t first = bytes.find("\"data_offsets\":[");
  const size_t second = bytes.find("\"data_offsets\":[", first + 1);
  ASSERT_NE(second, bytes.npos);
  const size_t digit = second + std::strlen("\"data_offsets\":[");
  bytes[digit] = bytes[digit] == '1' ? '2' : '1';
  folder_.file("model.safetensors", bytes);
  expect_refusal(run_mxlm(eval()), 1, "model.safetensors");
}

TEST_F(BadModel, ShapesThatDoNotFitTheConfig) {
  rewrite("config.json", "\"intermediate_size\": 704", "\"intermediate_size\": 705");
  expect_refusal(run_mxlm(eval()), 1, "mlp");
}

TEST_F(BadModel, UnknownModelTypeListsTheKnown) {
  rewrite("config.json", "\"model_type\": \"llama\"", "\"model_type\": \"lhama\"");
  expect_refusal(run_mxlm(eval()), 1, "llama");
}

TEST_F(BadModel, ConfigThatIsNoJson) {
  folder_.file("config.json", "{");
  expect_refusal(run_mxlm(eval()), 1, "config.json");
  folder_.file("config.json", "{\"a\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}");
  expect_refusal(run_mxlm(eval()), 1, "config.json");
}

TEST_F(BadModel, AbsurdNumbersInTheConfig) {
  const auto config = nlohmann::json::parse(slurp(kModel + "/config.json"));
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, nlohmann::json>>{
           {"hidden_size", int64_t{1} << 40},
           {"hidden_size", 0},
           {"num_hidden_layers", 1'000'000'000},
           {"num_attention_heads", -4},
           {"num_attention_heads", int64_t{1} << 31},
           {"num_key_value_heads", 1'000'000},
           {"intermediate_size", uint64_t{1} << 63},
           {"vocab_size", 1e300},
           {"max_position_embeddings", -1},
           {"rms_norm_eps", "x"},
       }) {
    auto changed = config;
    changed[key] = value;
    folder_.file("config.json", changed.dump());
    SCOPED_TRACE(fmt::format("{} {}", key, value.dump()));
    expect_refusal(run_mxlm("inspect '" + folder_.path().string() + "' --quiet"), 1, key);
  }
}

TEST_F(BadModel, TokenizerWithoutMerges) {
  auto tokenizer = nlohmann::json::parse(slurp(folder_ / "tokenizer.json"));
  tokenizer["model"].erase("merges");
  folder_.file("tokenizer.json", tokenizer.dump());
  expect_refusal(run_mxlm(eval()), 1, "merges");
}

TEST_F(BadModel, TextWithoutATokenAndContextOfOne) {
  folder_.file("text.txt", "");
  EXPECT_EQ(run_mxlm(eval()).code, 1);
  folder_.file("text.txt", "Alice was beginning to get very tired.");
  expect_refusal(run_mxlm(eval() + " --context 1"), 2, "context");
}

TEST_F(BadModel, NanWeightsFinishAndAreCounted) {
  std::string bytes = slurp(folder_ / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(8 + length), bytes.end(), '\xff');  // BF16 ffff is a NaN
  folder_.file("model.safetensors", bytes);
  const Outcome outcome = run_mxlm(eval() + " --json '" + (folder_ / "out.json") + "'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto result = nlohmann::json::parse(slurp(folder_ / "out.json"));
  const auto& baseline = result["runs"][0]["variants"][0];
  EXPECT_EQ(baseline["nonfinite"], baseline["tokens"]);
  EXPECT_TRUE(baseline["ppl"].is_null());
}

TEST_F(BadModel, PlacesThatCannotBeWritten) {
  const Outcome full = run_mxlm(eval() + " --json /dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.err, HasSubstr("/dev/full"));
  const Outcome closed = run_mxlm(eval() + " | true");
  EXPECT_TRUE(closed.code == 0 || closed.code == 1) << closed.code;  // the pipe may close before or after the table
  EXPECT_LE(std::count(closed.err.begin(), closed.err.end(), '\n'), 1) << closed.err;
}

TEST_F(BadModel, VariantsAndOptionsThatMakeNoSense) {
  expect_refusal(run_mxlm("eval --quiet --mx mlp=mxfp5"), 2, "mxfp5");
  expect_refusal(run_mxlm("eval --quiet --mx 'nothing.*=mxfp4'"), 2, "nothing.*");
  expect_refusal(run_mxlm(eval() + " --mx mlp=mxfp4"), 2, "--no-variants");
  expect_refusal(run_mxlm(eval() + " --protocol guess"), 2, "guess");
  expect_refusal(run_mxlm("eval --no-such-option"), 2, "no-such-option");
  expect_refusal(run_mxlm(""), 2, "mxlm --help");
}

TEST_F(BadModel, TextsThatCannotBeRead) {
  expect_refusal(run_mxlm("eval --quiet --text '" + (folder_ / "no.txt") + "'"), 1, "no.txt");
  expect_refusal(run_mxlm("eval --quiet --text '" + folder_.path().string() + "'"), 1, "folder");
  folder_.file("bad.jsonl", "{\"text\": \"fine\"}\n{\"text\": 7}\n");
  expect_refusal(run_mxlm("eval --quiet --data '" + (folder_ / "bad.jsonl") + "'"), 1, "Line 2");
}

TEST(BadCommand, AMessageIntoAClosedPipeIsNoCrash) {
  const Outcome outcome = run_mxlm("eval --tier E 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}");
  EXPECT_EQ(outcome.code, 2);
}

TEST(BadCommand, NumbersHaveReadableBounds) {
  expect_refusal(run_mxlm("eval --quiet --batch-size x"), 2, "1 to 1099511627776");
}

}  // namespace
}  // namespace mxlm
