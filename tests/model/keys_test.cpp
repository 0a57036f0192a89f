// The keys of config.json: the lists of keys.cpp against those that transformers reads, and what is done with each.
// tools/goldens/make_config_keys.py wrote tests/data/model/config_keys.json.
#include "model/keys.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "io/file.hpp"
#include "io/safetensors.hpp"
#include "model/spec.hpp"

namespace mxlm {
namespace {

using nlohmann::json;

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

json transformers_keys() { return read_json(std::filesystem::path(MXLM_TEST_DATA) / "model/config_keys.json"); }

const FamilyKeys& keys_of(const std::string& type) {
  for (const FamilyKeys& keys : family_keys()) {
    if (keys.model_type == type) return keys;
  }
  throw std::runtime_error("no keys of " + type);
}

/// Every name in a family's lists and in those of all families.
std::set<std::string> listed(const std::string& family) {
  std::set<std::string> names;
  for (const std::string& type : {std::string(), family}) {
    const FamilyKeys& keys = keys_of(type);
    const json applied = json::parse(keys.applied), fixed = json::parse(keys.fixed);
    const json aliases = json::parse(keys.aliases);
    for (const auto& [name, value] : applied.items()) names.insert(name);
    for (const auto& [name, value] : fixed.items()) names.insert(name);
    for (const auto& [name, other] : aliases.items()) names.insert(other.get<std::string>());
    std::istringstream inert{std::string(keys.inert)};
    for (std::string name; inert >> name;) names.insert(name);
  }
  return names;
}

/// The message with which the config is refused; "" if it is not.
std::string refusal(const json& config, const std::string& type) {
  try {
    with_family_keys(Config::parse(config.dump(), "config.json"), type);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(FamilyKeyLists, HoldEveryKeyThatTransformersReads) {
  const json reference = transformers_keys();
  const auto families = family_keys();
  // Without the list for all families.
  ASSERT_EQ(std::ssize(reference["families"]),
            std::count_if(families.begin(), families.end(), [](const FamilyKeys& f) { return f.family.empty(); }) - 1);
  for (const auto& [family, keys] : reference["families"].items()) {
    const std::set<std::string> names = listed(family);
    std::set<std::string> read = keys["read"].get<std::set<std::string>>();
    for (const auto& [name, value] : keys["defaults"].items()) read.insert(name);
    for (const auto& [name, other] : keys["aliases"].items()) read.insert(name);
    for (const auto& name : reference["common"]) read.insert(name.get<std::string>());
    for (const std::string& name : read) EXPECT_TRUE(names.contains(name)) << family << " " << name;
  }
}

// Each key of a real file is in a list, or known to be read by nobody; and no real file is refused for its keys.
TEST(FamilyKeyLists, HoldTheKeysOfRealFiles) {
  const json real = read_json(std::filesystem::path(MXLM_TEST_DATA) / "model/real_keys.json");
  EXPECT_GE(real["configs"].size(), 30U);
  for (const auto& [model, config] : real["configs"].items()) {
    const std::string type = config["model_type"];
    std::set<std::string> names = listed(type);
    const auto unread = real["unread"].value(type, std::set<std::string>());
    const std::string family(keys_of(type).family);
    if (!family.empty()) names.merge(listed(family));
    for (const auto& [name, value] : config.items()) {
      EXPECT_TRUE(names.contains(name) || unread.contains(name)) << model << " " << name;
    }
    EXPECT_EQ(refusal(config, type), "") << model;
  }
}

TEST(FamilyKeyLists, HaveTheDefaultsOfTransformers) {
  const json reference = transformers_keys();
  for (const auto& [family, keys] : reference["families"].items()) {
    const json applied = json::parse(keys_of(family).applied);
    const json fixed = json::parse(keys_of(family).fixed);
    for (const auto& [name, value] : keys["defaults"].items()) {
      // Falcon's older names of these two decide where they are absent.
      if (family == "falcon" && (name == "num_hidden_layers" || name == "num_attention_heads")) continue;
      // The value of gpt_oss is an object that its class fills in.
      if (name == "rope_parameters" || name == "bos_token_id") continue;
      if (applied.contains(name)) {
        EXPECT_EQ(applied[name], value) << family << " " << name;
      } else if (fixed.contains(name) && !fixed[name].is_object() && !fixed[name].is_array() && !value.is_null()) {
        EXPECT_EQ(fixed[name], value) << family << " " << name;
      }
    }
  }
}

TEST(FamilyKeyLists, HaveTheAliasesOfTransformers) {
  const json reference = transformers_keys();
  for (const auto& [family, keys] : reference["families"].items()) {
    const json aliases = json::parse(keys_of(family).aliases);
    for (const auto& [other, name] : keys["aliases"].items()) {
      // transformers keeps qwen3_moe's under the other name.
      if (family == "qwen3_moe") {
        EXPECT_EQ(aliases[other], name) << family;
      } else {
        EXPECT_EQ(aliases[name.get<std::string>()], other) << family;
      }
    }
  }
}

/// A value that is neither the supported one nor one of them.
json other_than(const json& supported) {
  if (supported.is_boolean()) return !supported.get<bool>();
  if (supported.is_number_integer()) return supported.get<int>() + 1;
  if (supported.is_number()) return supported.get<double>() + 1;
  return "something else";
}

void expect_refusals(const json& fixed, const std::string& type, const std::string& at,
                     const std::function<json(const json&)>& wrap) {
  for (const auto& [name, supported] : fixed.items()) {
    if (supported.is_object()) {
      expect_refusals(supported, type, name + ".", [&](const json& inner) { return json{{name, inner}}; });
      continue;
    }
    const json other = other_than(supported.is_array() ? supported[0] : supported);
    const std::string said = refusal(wrap(json{{name, other}}), type);
    EXPECT_NE(said.find("'" + at + name + "' is " + other.dump()), std::string::npos) << type << " " << name << said;
    EXPECT_EQ(refusal(wrap(json{{name, nullptr}}), type), "") << type << " " << name;
    for (const json& value : supported.is_array() ? supported : json::array({supported})) {
      EXPECT_EQ(refusal(wrap(json{{name, value}}), type), "") << type << " " << name;
    }
  }
}

TEST(FamilyKeyLists, RefuseKeysThatChangeTheLogitsByNameAndValue) {
  size_t keys = 0;
  for (const FamilyKeys& family : family_keys()) {
    const json fixed = json::parse(family.fixed);
    keys += fixed.size();
    expect_refusals(fixed, std::string(family.model_type), "", [](const json& config) { return config; });
  }
  EXPECT_GT(keys, 15U);
}

TEST(FamilyKeyLists, AnOlderNameHasTheListsOfItsFamily) {
  EXPECT_NE(refusal({{"is_causal", false}}, "internlm").find("'is_causal' is false"), std::string::npos);
  const Config internlm = with_family_keys(Config::parse("{}", "config.json"), "internlm");
  EXPECT_TRUE(internlm.boolean("attention_bias"));
  EXPECT_EQ(internlm.integer("hidden_size", 0, 1 << 20), 4096);
  const Config without = with_family_keys(Config::parse(R"({"bias": false})", "config.json"), "internlm");
  EXPECT_FALSE(without.boolean("attention_bias"));
  const Config epoch = with_family_keys(Config::parse(R"({"norm_eps": 0.5, "rope_pct": 0.75})", "c"), "stablelm_epoch");
  EXPECT_EQ(epoch.number("layer_norm_eps"), 0.5);
  EXPECT_EQ(epoch.number("partial_rotary_factor"), 0.75);
}

TEST(FamilyKeyLists, ANullIsNoAbsentKey) {
  const auto window = [](const char* text) {
    return with_family_keys(Config::parse(text, "config.json"), "mistral").integer_or("sliding_window", 0, 1, 1 << 20);
  };
  EXPECT_EQ(window("{}"), 4096);
  EXPECT_EQ(window(R"({"sliding_window": null})"), 0);
  EXPECT_EQ(window(R"({"sliding_window": 8, "sliding_window": 16})"), 16);  // the last one, as in Python
}

}  // namespace
}  // namespace mxlm
