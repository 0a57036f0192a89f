#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"

namespace mxlm::text {

/// The "precompiled_charsmap" of a SentencePiece model: a double-array trie of character sequences, and the texts that
/// replace them. Read as `tokenizers` reads it (its crate spm_precompiled), oddities included: of the sequences that a
/// text begins with the shortest one decides.
class Charsmap {
 public:
  /// `json` holds it in base64. Throws Error if it is not whole.
  static Charsmap from_json(const Json& json);

  /// What replaces `text`, or nullopt.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // each ends with a zero byte
};

}  // namespace mxlm::text
