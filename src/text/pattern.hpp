#pragma once

// Patterns of normalisers and pre-tokenizers.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"
#include "text/regex.hpp"

namespace mxlm::text {

/// The "pattern" of Replace and Split: {"String": ...} (taken literally) or {"Regex": ...}.
class Pattern {
 public:
  static Pattern from_json(const Json& json);
  explicit Pattern(std::string literal) : text_(std::move(literal)) {}

  /// Appends the division of `text` as Regex::find_all does.
  void find_all(std::string_view text, std::vector<Match>& out, size_t enough = std::string_view::npos) const;
  /// The text of the pattern, if it is a regular expression.
  [[nodiscard]] std::optional<std::string_view> regex_text() const;

 private:
  std::string text_;
  std::optional<Regex> regex_;
};

}  // namespace mxlm::text
