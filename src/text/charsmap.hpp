#pragma once

// The precompiled normalisation map of SentencePiece models.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"

namespace mxlm::text {

/// The "precompiled_charsmap" of a SentencePiece model: a double-array trie of character sequences, and the texts that
/// replace them. It is read as `tokenizers` reads it (in the crate spm_precompiled), including a peculiarity: of the
/// sequences that begin a text, the shortest decides.
class Charsmap {
 public:
  /// `json` holds the map in base64. Throws Error if the map is incomplete.
  static Charsmap from_json(const Json& json);

  /// The replacement of `text`, or nullopt.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;  // each ends with a zero byte
};

}  // namespace mxlm::text
