// booklet-7m on a book in float32, against transformers and microxcaling (tests/data/reference/figures.json). All
// figures of both books are in tools/checks/check_reference.py; here are those that a test has time for.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/documents.hpp"
#include "load/load.hpp"
#include "run/evaluate.hpp"
#include "sanitized.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;

nlohmann::json read_json(const fs::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// Mean NLL of the baseline and the variants.
RunResult run(const std::vector<std::string>& variants, int64_t max_windows) {
  const LoadedModel model = load_model("", /*with_tokenizer=*/true);
  const DocumentSource text = read_text((fs::path(MXLM_SOURCE_DIR) / "data/alice.txt").string());
  ResolvedOptions options;
  options.protocol.name = "window";
  options.protocol.context = 1024;
  options.protocol.max_windows = max_windows;
  options.asked.dtype = api::ComputeType::float32;
  for (const std::string& variant : variants) options.variants.push_back(Variant::parse(variant));
  return evaluate(model, text, options, {});
}

TEST(Reference, TheWholeBook) {
  if (kSanitized) GTEST_SKIP() << "takes minutes under a sanitizer; TheFirstWindows is the same at a smaller size";
  const auto figures = read_json(fs::path(MXLM_TEST_DATA) / "reference/figures.json")["booklet-7m"];
  const auto& alice = figures["texts"]["alice.txt"];
  const std::string weights_only = "attention=mxfp4_e2m1/none,mlp=mxfp4_e2m1/none";
  const std::string both = "attention=mxfp8_e4m3,mlp=mxfp8_e4m3";
  const RunResult result = run({weights_only, both}, 0);
  ASSERT_EQ(result.variants.size(), 3U);
  EXPECT_EQ(result.variants[0].figures.tokens, alice["scored"].get<int64_t>());
  EXPECT_NEAR(result.variants[0].figures.nll, alice["baseline"].get<double>(), 2e-6);
  EXPECT_NEAR(result.variants[1].figures.nll, alice["weights_only"][weights_only].get<double>(), 3e-6);
  EXPECT_NEAR(result.variants[2].figures.nll, alice["weights_and_activations"][both].get<double>(), 2e-3);
}

TEST(Reference, TheFirstWindows) {
  const auto first = read_json(fs::path(MXLM_TEST_DATA) / "reference/alice_first_windows.json");
  std::vector<std::string> variants;
  for (const auto& [variant, nll] : first["weights_only"].items()) variants.push_back(variant);
  ASSERT_FALSE(variants.empty());
  if (kSanitized) variants.resize(1);  // one takes as long there as all do elsewhere
  const RunResult result = run(variants, first["windows"].get<int64_t>());
  EXPECT_EQ(result.variants[0].figures.tokens, first["scored"].get<int64_t>());
  EXPECT_NEAR(result.variants[0].figures.nll, first["baseline"].get<double>(), 2e-6);
  for (size_t v = 0; v < variants.size(); ++v) {
    EXPECT_NEAR(result.variants[v + 1].figures.nll, first["weights_only"][variants[v]].get<double>(), 3e-6)
        << variants[v];
  }
}

}  // namespace
}  // namespace mxlm
