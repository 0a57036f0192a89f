#include "hub/options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace mxlm::hub {
namespace {

/// Sets variables of the environment for as long as it lives.
class Environment {
 public:
  void set(const std::string& name, const std::optional<std::string>& value) {
    const char* before = std::getenv(name.c_str());
    before_.emplace(name, before != nullptr ? std::optional<std::string>(before) : std::nullopt);
    put(name, value);
  }
  Environment() = default;
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() {
    for (const auto& [name, value] : before_) put(name, value);
  }

 private:
  static void put(const std::string& name, const std::optional<std::string>& value) {
    value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  std::map<std::string, std::optional<std::string>> before_;
};

TEST(HubOptions, AreThoseOfHuggingfaceHub) {
  std::ifstream file(std::string(MXLM_TEST_DATA) + "/hub/environment.json");
  const auto golden = nlohmann::json::parse(file);
  ASSERT_GT(golden["cases"].size(), 20U);
  for (const auto& example : golden["cases"]) {
    Environment environment;
    for (const char* name : {"HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_TOKEN",
                             "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "UNSET", "DISKS"}) {
      environment.set(name, std::nullopt);
    }
    for (const auto& [name, value] : golden["always"].items()) environment.set(name, value.get<std::string>());
    for (const auto& [name, value] : example["variables"].items()) environment.set(name, value.get<std::string>());
    EXPECT_EQ(Options::from_environment().cache, example["cache"].get<std::string>()) << example;
  }
}

TEST(HubOptions, TheTokensFileMayBeNamedByAVariable) {
  std::string folder = testing::TempDir() + "mxlm_token_XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  std::ofstream(folder + "/token") << "hf_something\n";
  Environment environment;
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN"}) {
    environment.set(name, std::nullopt);
  }
  environment.set("TOKENS_FOLDER", folder);
  environment.set("HF_TOKEN_PATH", "${TOKENS_FOLDER}/token");
  EXPECT_EQ(Options::from_environment().token, "hf_something");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace mxlm::hub
