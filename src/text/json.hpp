#pragma once

// Checked access to the parts of a tokenizer.json; every message names the file and the member.

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mxlm::text {

/// An element of the file, and words that say where it is ("tokenizer.json: normalizer").
struct Json {
  simdjson::dom::element value;
  std::string where;

  /// The member `key`, or nullopt if it is missing or null. Throws Error if this is not an object.
  [[nodiscard]] std::optional<Json> find(std::string_view key) const;
  /// The member `key`; throws Error if it is missing or null.
  [[nodiscard]] Json at(std::string_view key) const;
  /// Element `index` of this array, for messages.
  [[nodiscard]] Json item(simdjson::dom::element element, size_t index) const;

  [[nodiscard]] simdjson::dom::array array() const;
  [[nodiscard]] simdjson::dom::object object() const;
  [[nodiscard]] std::string_view string() const;
  [[nodiscard]] bool boolean() const;
  /// A token id: an integer from 0 to kMaxTokenId.
  [[nodiscard]] int32_t token_id() const;

  [[nodiscard]] bool boolean_or(std::string_view key, bool otherwise) const;
};

/// Far above any real vocabulary, and small enough that no table sized by ids exhausts memory.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;
/// The deepest nesting of sequences inside sequences.
inline constexpr int kMaxNesting = 16;

}  // namespace mxlm::text
