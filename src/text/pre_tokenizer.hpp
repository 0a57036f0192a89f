#pragma once

// The division of a text into the pieces that the model encodes.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"

namespace mxlm::text {

/// A piece of the text, in bytes.
struct Span {
  size_t begin;
  size_t end;
};

/// A text and its pieces so far, in order and nonempty. Steps divide the pieces further, drop some, or rewrite the
/// text.
struct Pieces {
  std::string_view text;
  std::string owned;  // `text` refers to it once a step has rewritten the text
  size_t origin = 0;  // leading bytes that come from the first character of the whole input
  std::vector<Span> spans;
  /// Pieces may omit what begins after this many bytes; the first step that divides the text omits it and sets `cut`.
  size_t enough = std::string_view::npos;
  bool cut = false;

  [[nodiscard]] std::string_view view(const Span& span) const { return text.substr(span.begin, span.end - span.begin); }
};

/// The "pre_tokenizer" of a tokenizer.json.
class PreTokenizer {
 public:
  class Step {
   public:
    virtual ~Step() = default;
    virtual void apply(Pieces& pieces) const = 0;
  };

  /// nullopt: each text is one piece. Throws Error naming an unsupported step.
  static PreTokenizer from_json(const std::optional<Json>& json);

  [[nodiscard]] bool empty() const { return steps_.empty(); }
  /// True if the last step maps bytes to the byte alphabet.
  [[nodiscard]] bool ends_with_byte_level() const;
  /// Omits that mapping, for a model that takes bytes.
  void leave_bytes();

  void apply(Pieces& pieces) const {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  void add(const Json& json, int depth);
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace mxlm::text
