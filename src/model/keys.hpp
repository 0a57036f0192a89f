#pragma once

// What is done with each key of config.json, for each model type.

#include <span>
#include <string_view>

#include "model/config.hpp"

namespace mxlm {

/// The keys of a model type. A key that is in none of these lists is ignored, as transformers ignores it:
/// tests/model/keys_test.cpp holds the lists against the keys that transformers reads.
struct FamilyKeys {
  std::string_view model_type;
  /// Its family; "" for a family itself. An older name has the lists of its family, too; its own go first.
  std::string_view family;
  /// JSON object: each key that is applied, with the value that an absent one has in transformers. null: an absent key
  /// means that there is none, or another key decides.
  std::string_view applied;
  /// JSON object: keys that change the logits and are supported at one value only. A list holds several such values,
  /// null stands for an absent or empty one, an object for keys of the object under this key.
  std::string_view fixed;
  /// JSON object: {"name": "other"} says that the key `other` is read as `name`, and wins over it.
  std::string_view aliases;
  /// Names that transformers reads and that cannot change the logits of a text, separated by spaces.
  std::string_view inert;
};

/// The lists of every known model type. The first, with an empty model_type, holds for all of them.
std::span<const FamilyKeys> family_keys();

/// The config as the model type `model_type` reads it: with the values of absent keys, and under one name each. Throws
/// Error naming key and value where a key that changes the logits has a value that is not supported.
Config with_family_keys(const Config& config, std::string_view model_type);

}  // namespace mxlm
