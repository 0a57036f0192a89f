// LoRA adapters against peft's merge_and_unload (tools/goldens/make_adapter_goldens.py), and what is refused.
#include "model/adapter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "logits_of.hpp"
#include "model/config.hpp"
#include "model/spec.hpp"
#include "test_device.hpp"

namespace mxlm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

const fs::path kData = MXLM_TEST_DATA;
const fs::path kAdapters = kData / "adapters";

std::vector<std::string> adapter_folders() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kAdapters)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

json read_json(const fs::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

ModelSpec load_with(const std::string& family, const Adapter& adapter) {
  const fs::path base = kData / "families" / family;
  const FileView config = FileView::map(base / "config.json");
  return load_spec(Config::parse(config.text(), config.name()), Checkpoint::open(base), &adapter);
}

class Adapters : public testing::TestWithParam<std::string> {};

TEST_P(Adapters, AreMergedAsPeftMergesThem) {
  const json golden = read_json(kAdapters / GetParam() / "golden.json");
  const Adapter adapter = Adapter::open(kAdapters / GetParam());
  EXPECT_EQ(adapter.base(), golden["base"].get<std::string>());
  const ModelSpec spec = load_with(golden["base"].get<std::string>(), adapter);
  const auto backend = test_backend({.threads = 1, .isa = std::nullopt, .order = cpu::Order::forward});
  const auto ids = golden["ids"].get<std::vector<int32_t>>();
  const std::vector<float> ours =
      logits_of(spec, *backend, DType::f32, {ids}, [](const LinearSpec&) { return ProductSpec{}; });
  const auto expected = golden["logits"].get<std::vector<std::vector<double>>>();
  double largest = 0, worst = 0;
  auto at = ours.end() - static_cast<int64_t>(expected.size()) * spec.vocabulary;
  for (const auto& row : expected) {
    ASSERT_EQ(static_cast<int64_t>(row.size()), spec.vocabulary);
    for (const double logit : row) {
      largest = std::max(largest, std::abs(logit));
      worst = std::max(worst, std::abs(logit - static_cast<double>(*at++)));
    }
  }
  // What the adapter changes is a thousand times as much and more.
  EXPECT_LT(worst, 2e-6 * largest);
  EXPECT_GT(golden["changed"].get<double>(), 0.1 * largest);
}

INSTANTIATE_TEST_SUITE_P(Peft, Adapters, testing::ValuesIn(adapter_folders()),
                         [](const auto& tested) { return tested.param; });

/// A copy of an adapter whose configuration a test changes.
class AdapterCopy {
 public:
  AdapterCopy() {
    std::string name = (fs::temp_directory_path() / "mxlm_adapter_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
    fs::copy(kAdapters / "linears", path_);
    plain_ = read_json(path_ / "adapter_config.json");
  }
  ~AdapterCopy() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  AdapterCopy(const AdapterCopy&) = delete;
  AdapterCopy& operator=(const AdapterCopy&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }
  void write(const std::string& text) const { std::ofstream(path_ / "adapter_config.json") << text; }
  /// What is said of it with another value under `key`, opened and merged into `base`.
  [[nodiscard]] std::string said(const std::string& key, const json& value, const std::string& base = "llama") const {
    json config = plain_;
    config[key] = value;
    write(config.dump());
    return said_of(base);
  }
  [[nodiscard]] std::string said_of(const std::string& base) const {
    try {
      static_cast<void>(load_with(base, Adapter::open(path_)));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

 private:
  fs::path path_;
  json plain_;
};

TEST(AdapterRefusals, NameTheKey) {
  const AdapterCopy copy;
  EXPECT_EQ(copy.said("lora_dropout", 0.5), "");
  EXPECT_EQ(copy.said("init_lora_weights", "gaussian"), "");
  EXPECT_THAT(copy.said("peft_type", "IA3"), HasSubstr("'IA3' is not supported"));
  EXPECT_THAT(copy.said("init_lora_weights", "pissa_niter_4"), HasSubstr("changes the base model's weights"));
  for (const char* key : {"use_dora", "lora_bias", "use_qalora"}) {
    EXPECT_THAT(copy.said(key, true), HasSubstr(std::string("'") + key + "' is not supported"));
  }
  EXPECT_THAT(copy.said("layer_replication", {{0, 2}, {1, 2}}), HasSubstr("'layer_replication'"));
  EXPECT_THAT(copy.said("trainable_token_indices", {1}), HasSubstr("'trainable_token_indices'"));
  EXPECT_THAT(copy.said("some_new_key", 3), HasSubstr("'some_new_key'"));
  EXPECT_THAT(copy.said("rank_pattern", {{".*q_proj", 4}}), HasSubstr("regular expression"));
  EXPECT_THAT(copy.said("lora_alpha", "x"), HasSubstr("finite number"));
}

TEST(AdapterRefusals, NameWhatDoesNotFit) {
  const AdapterCopy copy;
  EXPECT_THAT(copy.said("r", 3), HasSubstr("its rank is 3"));
  EXPECT_THAT(copy.said("r", -1e300), HasSubstr("does not fit"));
  EXPECT_THAT(copy.said("r", 2, "qwen3"), HasSubstr("does not fit module"));
  EXPECT_THAT(copy.said("r", 2, "gpt2"), HasSubstr("which the model does not have"));
  copy.write("{");
  EXPECT_THAT(copy.said_of("llama"), HasSubstr("not valid JSON"));
  copy.write("[]");
  EXPECT_THAT(copy.said_of("llama"), HasSubstr("no JSON object"));
  fs::remove(copy.path() / "adapter_model.safetensors");
  EXPECT_THAT(copy.said("r", 2), HasSubstr("no adapter_model.safetensors"));
  EXPECT_EQ(adapter_base(copy.path()), "llama");
  fs::remove(copy.path() / "adapter_config.json");
  EXPECT_THAT(copy.said_of("llama"), HasSubstr("not an adapter of peft"));
  EXPECT_FALSE(adapter_base(copy.path()));
  EXPECT_THAT([&] { Adapter::open(copy.path() / "gone"); },
              testing::ThrowsMessage<Error>(HasSubstr("is not a folder")));
}

TEST(AdapterHash, CoversConfigurationAndWeights) {
  const AdapterCopy copy;
  const std::string before = Adapter::open(copy.path()).sha256();
  EXPECT_EQ(Adapter::open(kAdapters / "linears").sha256(), before);
  json config = read_json(copy.path() / "adapter_config.json");
  config["lora_alpha"] = 9;
  copy.write(config.dump());
  EXPECT_NE(Adapter::open(copy.path()).sha256(), before);
}

}  // namespace
}  // namespace mxlm
