#pragma once

// Reads config.json with checks.

#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mxlm {

/// A JSON object of config.json. It is read as Python's json module reads it, and its members have checked types. A
/// null member counts as absent, as in transformers. Every getter throws Error, which names the file, the key and the
/// expected value. Copies are cheap.
class Config {
 public:
  /// Parses the text of a config.json; `name` is used in messages.
  static Config parse(std::string_view json, const std::string& name);

  /// An object with the members of all of `objects`. If several objects have a key, the last object counts. `name` is
  /// used in messages.
  static Config merge(const std::vector<Config>& objects, const std::string& name);

  [[nodiscard]] bool has(std::string_view key) const;
  /// True also for a null member, because for some keys null does not mean the same as an absent key.
  [[nodiscard]] bool mentions(std::string_view key) const;
  /// True if `key` holds an integer / is true.
  [[nodiscard]] bool is_integer(std::string_view key) const;
  [[nodiscard]] bool is_true(std::string_view key) const;
  /// The string under `key`; "" if the key is absent or is not a string.
  [[nodiscard]] std::string text_of(std::string_view key) const;
  /// An integer in [min, max].
  [[nodiscard]] int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  [[nodiscard]] int64_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  /// A finite number.
  [[nodiscard]] double number(std::string_view key) const;
  [[nodiscard]] double number_or(std::string_view key, double fallback) const;
  /// A null is false, as in Python.
  [[nodiscard]] bool boolean(std::string_view key) const;
  [[nodiscard]] bool boolean_or(std::string_view key, bool fallback) const;
  [[nodiscard]] std::string string(std::string_view key) const;
  [[nodiscard]] std::string string_or(std::string_view key, std::string_view fallback) const;
  /// The object under `key`; nullopt if the key is absent.
  [[nodiscard]] std::optional<Config> object(std::string_view key) const;
  /// The array under `key`, whose elements have the keys "0", "1", ...; nullopt if the key is absent.
  [[nodiscard]] std::optional<Config> array(std::string_view key) const;
  /// The number of elements of this array.
  [[nodiscard]] size_t length() const;
  /// This object as JSON.
  [[nodiscard]] std::string json() const;
  /// The keys of this object, in the order of the file.
  [[nodiscard]] std::vector<std::string> keys() const;
  /// The array of finite numbers / of strings under `key`; empty if the key is absent.
  [[nodiscard]] std::vector<double> numbers(std::string_view key) const;
  [[nodiscard]] std::vector<std::string> strings(std::string_view key) const;
  [[nodiscard]] const std::string& name() const { return name_; }

  /// From now on, an absent key has its value in the JSON object `defaults`. Defaults that were added earlier win.
  void add_defaults(std::string_view defaults);
  /// From now on, `name` is read from the key `other` if the file has it. The JSON object holds {"name": "other"}.
  void add_aliases(std::string_view aliases);
  /// Throws Error, which names the key and its value, if a key of the JSON object `fixed` has another value in this
  /// object. FamilyKeys::fixed says what lists, null and objects mean.
  void check_fixed(std::string_view fixed) const;

 private:
  struct Document;
  /// A Config of `element`, without the defaults and aliases of this Config.
  [[nodiscard]] Config child(const simdjson::dom::element& element) const;
  std::shared_ptr<Document> document_;
  /// The member `key` of the file, which may be null; nullopt if it is absent.
  [[nodiscard]] std::optional<simdjson::dom::element> find_in_file(std::string_view key) const;
  /// The member `key` or its default; nullopt if it is absent or null.
  [[nodiscard]] std::optional<simdjson::dom::element> find_value(std::string_view key) const;
  [[nodiscard]] double number_of(const simdjson::dom::element& element, std::string_view key) const;
  [[nodiscard]] std::string string_of(const simdjson::dom::element& element, std::string_view key) const;

  simdjson::dom::element value_;  // in *document_
  std::string name_;
  std::vector<Config> defaults_;
  std::vector<std::pair<std::string, std::string>> aliases_;
};

/// " (the file names 'ORG/NAME')" for the end of a message: the model that this model was made from. "" if config.json
/// does not name such a model.
std::string origin(const Config& config);

}  // namespace mxlm
