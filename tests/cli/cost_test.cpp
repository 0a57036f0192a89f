// What many variants and subsets cost: time and memory that grow with their number, not with its square.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "../sanitized.hpp"
#include "run_mxlm.hpp"

namespace mxlm {
namespace {

using nlohmann::json;

/// A Llama of width 1 with booklet-7m's tokenizer, whose arithmetic costs next to nothing.
void write_narrow_model(const Folder& folder) {
  constexpr int64_t vocabulary = 4096, head = 2;
  const std::string layer = "model.layers.0.";
  const std::vector<std::pair<std::string, std::vector<int64_t>>> tensors = {
      {"model.embed_tokens.weight", {vocabulary, 1}}, {"model.norm.weight", {1}},
      {layer + "input_layernorm.weight", {1}},        {layer + "post_attention_layernorm.weight", {1}},
      {layer + "self_attn.q_proj.weight", {head, 1}}, {layer + "self_attn.k_proj.weight", {head, 1}},
      {layer + "self_attn.v_proj.weight", {head, 1}}, {layer + "self_attn.o_proj.weight", {1, head}},
      {layer + "mlp.gate_proj.weight", {1, 1}},       {layer + "mlp.up_proj.weight", {1, 1}},
      {layer + "mlp.down_proj.weight", {1, 1}},
  };
  json header;
  std::string data;
  for (const auto& [name, shape] : tensors) {
    const size_t begin = data.size();
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>((i * 7 + 3) % 16) / 8 - 1;
      char bytes[sizeof(value)];
      std::memcpy(bytes, &value, sizeof(value));
      data.append(bytes, sizeof(value));
    }
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(text.size() >> (8 * i));
  static_cast<void>(folder.file("model.safetensors", out + text + data));
  const json config = {{"model_type", "llama"},
                       {"hidden_size", 1},
                       {"intermediate_size", 1},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 1},
                       {"num_key_value_heads", 1},
                       {"head_dim", head},
                       {"vocab_size", vocabulary},
                       {"max_position_embeddings", 1024},
                       {"rms_norm_eps", 1e-5},
                       {"tie_word_embeddings", true},
                       {"hidden_act", "silu"}};
  static_cast<void>(folder.file("config.json", config.dump()));
  std::filesystem::create_symlink(kModel + "/tokenizer.json", folder / "tokenizer.json");
}

/// A file for --config with `count` variants, each of which is a branch of its own.
std::string variants_file(const Folder& folder, size_t count) {
  const std::vector<std::string> formats = {"mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8"};
  const std::vector<std::string> targets = {"*.q_proj", "*.k_proj", "*.v_proj", "*.o_proj", "mlp"};
  std::string text = "mx = [";
  for (size_t i = 0; i < count; ++i) {
    text += "\"v" + std::to_string(i) + ":";
    size_t rest = i;
    for (const std::string& target : targets) {
      text += (target == targets.front() ? "" : ",") + target + "=" + formats[rest % formats.size()];
      rest /= formats.size();
    }
    text += "\", ";
  }
  return folder.file("variants.toml", text + "]\n");
}

double child_seconds() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec) + static_cast<double>(usage.ru_utime.tv_usec) * 1e-6;
}

TEST(Cost, GrowsWithTheNumberOfVariants) {
  if (kSanitized) GTEST_SKIP() << "sanitizers have costs of their own";
  const Folder folder;
  write_narrow_model(folder);
  const auto seconds = [&](size_t variants) {
    const double before = child_seconds();
    const Outcome outcome = run_mxlm(
        "eval " + quoted(folder.path().string()) + " --text " + quoted(MXLM_SOURCE_DIR "/data/alice.txt") +
        " --quiet --threads 1 --context 16 --max-windows 2 --config " + quoted(variants_file(folder, variants)) +
        " --json " + quoted(folder / "r.json") + " --html " + quoted(folder / "r.html") + " --csv " +
        quoted(folder / "r.csv") + " --markdown " + quoted(folder / "r.md"));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return child_seconds() - before;
  };
  constexpr size_t few = 500, times = 8;
  const double small = seconds(few), large = seconds(times * few);
  EXPECT_LT(large, small * times * 2.5) << small << " s for " << few;
  const json result = json::parse(slurp(folder / "r.json"));
  EXPECT_EQ(result["runs"][0]["variants"].size(), times * few + 1);
  // What eval writes, report reads.
  const Outcome report = run_mxlm("report " + quoted(folder / "r.json") + " --markdown -");
  EXPECT_EQ(report.code, 0) << report.err;
  EXPECT_EQ(report.out, slurp(folder / "r.md"));
}

TEST(Cost, MoreThanTenThousandSubsetsAreReported) {
  const Folder folder;
  write_narrow_model(folder);
  std::string lines;
  for (int i = 0; i < 11'000; ++i) {
    lines += R"({"text": "one two three", "meta": {"pile_set_name": "s)" + std::to_string(i) + "\"}}\n";
  }
  const Outcome outcome =
      run_mxlm("eval " + quoted(folder.path().string()) + " --data " + quoted(folder.file("d.jsonl", lines)) +
               " --quiet --context 16 --mx mlp=mxfp4 --max-samples 20000 --json " + quoted(folder / "r.json") +
               " --html " + quoted(folder / "r.html"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json::parse(slurp(folder / "r.json"))["runs"][0]["subsets"].size(), 11'000U);
  const Outcome report = run_mxlm("report " + quoted(folder / "r.json") + " -o " + quoted(folder / "again.html"));
  EXPECT_EQ(report.code, 0) << report.err;
}

}  // namespace
}  // namespace mxlm
