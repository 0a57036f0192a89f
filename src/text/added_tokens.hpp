#pragma once

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

/// A token that is cut out of the text before the model sees it, and how it is found there.
struct AddedToken {
  std::string content;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = true;  // found in normalised text, by its normalised content
  bool special = false;

  auto operator<=>(const AddedToken&) const = default;
};

/// The "added_tokens" of a tokenizer.json and those that other files add to them.
class AddedTokens {
 public:
  /// A part of a text: a token (id >= 0) or text between tokens.
  struct Part {
    size_t begin;
    size_t end;
    int32_t id;
  };

  /// As the library does, a token that the vocabulary holds has its id there, and any other gets the next free id; a
  /// file that says otherwise is answered with a warning. Of two tokens with the same content the later one's flags
  /// hold; `more` are added after those of the file.
  static AddedTokens from_json(const std::optional<Json>& list, const std::vector<AddedToken>& more,
                               const Vocabulary& vocabulary, const Normalizer& normalizer);

  /// Divides raw text (`normalized` false) or normalised text at the tokens of that kind. `special` false leaves tokens
  /// whose "special" is true in the text.
  void split(std::string_view text, bool normalized, bool special, std::vector<Part>& out) const;

  [[nodiscard]] std::optional<int32_t> find(std::string_view content) const;
  /// What decoding starts from: the normalised content of a normalized token, else its content.
  [[nodiscard]] std::optional<std::string_view> token_of(int32_t id) const;
  /// -1 if there is none.
  [[nodiscard]] int32_t max_id() const { return tokens_.empty() ? -1 : tokens_.rbegin()->first; }

 private:
  struct Token : AddedToken {
    std::string pattern;  // what is searched for
  };

  /// Finds the longest token at a place: a trie over bytes.
  class Finder {
   public:
    /// Returns false if the pattern is there already.
    bool add(std::string_view pattern, int32_t id);
    [[nodiscard]] bool empty() const { return nodes_.size() == 1; }
    /// The first place from `at` on where a token starts; sets `end` and `id` of the longest there. npos: none.
    size_t find(std::string_view text, size_t at, size_t& end, int32_t& id) const;

   private:
    struct Node {
      uint32_t child = 0;    // the first of the nodes below, 0: none
      uint32_t sibling = 0;  // the next node below the same one
      int32_t id = -1;
      unsigned char byte = 0;
    };
    std::vector<Node> nodes_{Node{}};
    std::array<uint32_t, 256> roots_{};  // nodes of the first byte
  };

  /// Gives the token its id and keeps it; the id is `next_id` where neither this nor the vocabulary knows the content.
  int32_t add(AddedToken token, const Vocabulary& vocabulary, const Normalizer& normalizer, int32_t& next_id);

  std::map<int32_t, Token> tokens_;
  std::map<std::string, int32_t, std::less<>> ids_;
  std::array<Finder, 2> finders_;  // [normalized]
};

}  // namespace mxlm::text
