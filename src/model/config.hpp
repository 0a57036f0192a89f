#pragma once

#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm {

/// A JSON object of config.json, read as Python's json module reads it, with typed, checked access. Cheap to copy; null
/// members count as absent, as in transformers. Every getter throws Error naming the file, the key and the value it
/// wanted.
class Config {
 public:
  /// Parses the text of a config.json; `name` is used in messages.
  static Config parse(std::string_view json, const std::string& name);

  /// An object with the members of all of `objects`; of several with one key the last counts. `name` is used in
  /// messages.
  static Config merge(const std::vector<Config>& objects, const std::string& name);

  [[nodiscard]] bool has(std::string_view key) const;
  /// True for a null member too, where that means something else than an absent one.
  [[nodiscard]] bool mentions(std::string_view key) const;
  /// An integer in [min, max].
  [[nodiscard]] int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  [[nodiscard]] int64_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  /// A finite number.
  [[nodiscard]] double number(std::string_view key) const;
  [[nodiscard]] double number_or(std::string_view key, double fallback) const;
  [[nodiscard]] bool boolean_or(std::string_view key, bool fallback) const;
  [[nodiscard]] std::string string(std::string_view key) const;
  [[nodiscard]] std::string string_or(std::string_view key, std::string_view fallback) const;
  /// The object under `key`, if there is one.
  [[nodiscard]] std::optional<Config> object(std::string_view key) const;
  /// The array under `key`, if there is one: its elements have the keys "0", "1", ...
  [[nodiscard]] std::optional<Config> array(std::string_view key) const;
  /// Elements of this array.
  [[nodiscard]] size_t length() const;
  /// This object as JSON.
  [[nodiscard]] std::string json() const;
  /// Keys of this object, in the file's order.
  [[nodiscard]] std::vector<std::string> keys() const;
  /// The array of finite numbers / of strings under `key`; empty if there is none.
  [[nodiscard]] std::vector<double> numbers(std::string_view key) const;
  [[nodiscard]] std::vector<std::string> strings(std::string_view key) const;
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  struct Document;
  std::shared_ptr<Document> document_;
  /// The member `key`, or nullopt if it is absent or null.
  [[nodiscard]] std::optional<simdjson::dom::element> find_value(std::string_view key) const;
  [[nodiscard]] double number_of(const simdjson::dom::element& element, std::string_view key) const;
  [[nodiscard]] std::string string_of(const simdjson::dom::element& element, std::string_view key) const;

  simdjson::dom::element value_;  // in *document_
  std::string name_;
};

}  // namespace mxlm
