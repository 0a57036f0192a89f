#pragma once

// Tokens that are cut out of the text before the model sees it.

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"
#include "text/normalizer.hpp"
#include "text/vocabulary.hpp"

namespace mxlm::text {

/// A token that is cut out of the text before the model sees it, and how it is found.
struct AddedToken {
  std::string content;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = true;  // found in normalised text, by its normalised content
  bool special = false;

  auto operator<=>(const AddedToken&) const = default;
};

/// The "added_tokens" of a tokenizer.json, and the tokens that other files add to them.
class AddedTokens {
 public:
  /// A part of a text: a token (id >= 0) or text between tokens.
  struct Part {
    size_t begin;
    size_t end;
    int32_t id;
  };

  /// Takes ids as the library does: a token that the vocabulary holds has its id there, and any other token gets the
  /// next free id; if a file says otherwise, a warning follows. Of two tokens with the same content the later flags
  /// count; `more` comes after the tokens of the file.
  static AddedTokens from_json(const std::optional<Json>& list, const std::vector<AddedToken>& more,
                               const Vocabulary& vocabulary, const Normalizer& normalizer);

  /// Divides raw text (`normalized` false) or normalised text at the tokens of that kind. With `special` false, tokens
  /// whose "special" is true stay in the text.
  void split(std::string_view text, bool normalized, bool special, std::vector<Part>& out) const;

  [[nodiscard]] std::optional<int32_t> find(std::string_view content) const;
  /// The text of a token for decoding: the normalised content of a normalized token, else its content.
  [[nodiscard]] std::optional<std::string_view> token_of(int32_t id) const;
  /// Returns -1 if there is no such token.
  [[nodiscard]] int32_t max_id() const { return tokens_.empty() ? -1 : tokens_.rbegin()->first; }

 private:
  struct Token : AddedToken {
    std::string pattern;  // the searched text
  };

  /// Finds the longest token at a place: a trie over bytes.
  class Finder {
   public:
    /// Returns false if the pattern exists already.
    bool add(std::string_view pattern, int32_t id);
    [[nodiscard]] bool empty() const { return nodes_.size() == 1; }
    /// The first place from `at` on where a token starts, or npos; sets `end` and `id` of the longest token there.
    size_t find(std::string_view text, size_t at, size_t& end, int32_t& id) const;

   private:
    struct Node {
      uint32_t child = 0;    // the first child node; 0: none
      uint32_t sibling = 0;  // the next node with the same parent
      int32_t id = -1;
      unsigned char byte = 0;
    };
    std::vector<Node> nodes_{Node{}};
    std::array<uint32_t, 256> roots_{};  // the nodes of the first byte
  };

  /// Stores the token and its id; the id is `next_id` if neither this object nor the vocabulary knows the content.
  int32_t add(AddedToken token, const Vocabulary& vocabulary, const Normalizer& normalizer, int32_t& next_id);

  std::map<int32_t, Token> tokens_;
  std::map<std::string, int32_t, std::less<>> ids_;
  std::array<Finder, 2> finders_;  // [normalized]
};

}  // namespace mxlm::text
