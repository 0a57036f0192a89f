// Checkpoints of tests/data/families under other configs, against transformers: tools/goldens/make_config_cases.py says
// which.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "io/safetensors.hpp"
#include "logits_of.hpp"
#include "model/config.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

nlohmann::json read_case_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// The logits [tokens, vocabulary] of one window under a config of this text.
std::vector<float> config_case_logits(const std::filesystem::path& folder, const std::string& config,
                                      const std::vector<int32_t>& tokens) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const ModelSpec spec = load_spec(Config::parse(config, "config.json"), checkpoint);
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  const std::vector<std::span<const int32_t>> windows{tokens};
  return logits_of(spec, *backend, DType::f32, windows, [](const LinearSpec&) { return ProductSpec{}; });
}

TEST(ConfigCases, GiveTheLogitsOfTransformers) {
  const std::filesystem::path data = MXLM_TEST_DATA;
  const auto golden = read_case_file(data / "model/config_cases.json");
  const auto tokens = golden["tokens"].get<std::vector<int32_t>>();
  EXPECT_GE(golden["cases"].size(), 50U);
  for (const auto& item : golden["cases"]) {
    const std::string checkpoint = item["checkpoint"];
    SCOPED_TRACE(item["name"].get<std::string>() + " " + checkpoint);
    auto config = read_case_file(data / "families" / checkpoint / "config.json");
    for (const auto& key : item["erase"]) config.erase(key.get<std::string>());
    for (const auto& [key, value] : item["set"].items()) config[key] = value;
    const auto logits = config_case_logits(data / "families" / checkpoint, config.dump(), tokens);
    const auto expected = item["logits"].get<std::vector<double>>();
    ASSERT_GE(expected.size(), 8U);
    const size_t vocabulary = logits.size() / tokens.size();
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(logits[logits.size() - vocabulary + i], expected[i], 2e-5 * item["largest"].get<double>());
    }
  }
}

// What Python's json reads in front of, beside and instead of a config's own members.
TEST(ConfigCases, OddJsonChangesNothing) {
  const std::filesystem::path folder = std::filesystem::path(MXLM_TEST_DATA) / "families/llama";
  const std::vector<int32_t> tokens{3, 17, 5, 29};
  const std::string plain = read_case_file(folder / "config.json").dump();
  const auto expected = config_case_logits(folder, plain, tokens);
  for (const char* members :
       {R"("x": NaN)", R"("x": [0.0, Infinity, -Infinity])", R"("x": 1000000000000000019884624838656)", R"("x": 1e999)",
        R"("hidden_size": 7)", R"("rms_norm_eps": Infinity)"}) {
    EXPECT_EQ(config_case_logits(folder, "{" + std::string(members) + "," + plain.substr(1), tokens), expected)
        << members;  // of two members of one name the last counts
  }
  EXPECT_EQ(config_case_logits(folder, "\xef\xbb\xbf" + plain, tokens), expected);
  const std::string spoilt = plain.substr(0, plain.size() - 1) + R"(, "rms_norm_eps": NaN})";
  EXPECT_THROW(config_case_logits(folder, spoilt, tokens), Error);
}

}  // namespace
}  // namespace mxlm
