#pragma once

// What mxlm does with each key of config.json, by model type.

#include <span>
#include <string_view>

#include "model/config.hpp"

namespace mxlm {

/// The keys of a model type. A key that is not in these lists is ignored, because transformers ignores it, too:
/// tests/model/keys_test.cpp compares the lists with the keys that transformers reads.
struct FamilyKeys {
  std::string_view model_type;
  /// The family of an older model type, which also has the lists of its family, after its own. "" for a family.
  std::string_view family;
  /// JSON object: each key that is applied, with the value that transformers gives to an absent key. null means that an
  /// absent key has no value, or that another key decides.
  std::string_view applied;
  /// JSON object: keys that change the logits and that are supported with one value only. A list holds several
  /// supported values, null stands for an absent or empty value, and an object holds keys of the object under this key.
  std::string_view fixed;
  /// JSON object: {"name": "other"} says that the key `other` is read as `name` and wins over the key `name`.
  std::string_view aliases;
  /// Keys that transformers reads but that cannot change the logits of a text, separated by spaces.
  std::string_view inert;
};

/// The lists of all known model types. The first entry, with an empty model_type, is for all model types.
std::span<const FamilyKeys> family_keys();

/// The config as `model_type` reads it: absent keys have their values, and aliases are resolved. Throws Error, which
/// names key and value, if a key that changes the logits has a value that is not supported.
Config with_family_keys(const Config& config, std::string_view model_type);

}  // namespace mxlm
