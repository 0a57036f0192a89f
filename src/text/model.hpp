#pragma once

// The models of tokenizers: from pieces of text to ids.

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "text/bpe.hpp"
#include "text/json.hpp"
#include "text/vocabulary.hpp"

namespace mxlm::text {

/// A model that knows words from a list: WordLevel, WordPiece or Unigram.
class WordModel {
 public:
  virtual ~WordModel() = default;
  /// Appends the ids of a nonempty piece. Throws Error if the piece holds something without a token.
  virtual void encode(std::string_view piece, std::vector<int32_t>& out) const = 0;
  [[nodiscard]] virtual const Vocabulary& vocabulary() const = 0;
};

/// The whole piece is a token, or is unknown.
std::unique_ptr<WordModel> word_level_from(const Json& model);
/// Takes the longest token that the rest of the piece begins with, again and again.
std::unique_ptr<WordModel> word_piece_from(const Json& model);
/// Takes the tokens with the largest sum of scores, as `tokenizers` 0.23 finds them (in float64, ties to the earlier
/// start).
std::unique_ptr<WordModel> unigram_from(const Json& model);

/// The "model" of a tokenizer.json: from pieces of text to ids.
class Model {
 public:
  using Workspace = Bpe::Workspace;

  /// Throws Error naming what is missing, wrong or unsupported.
  static Model from_json(const Json& model);

  /// See Bpe::take_bytes; other models never take bytes.
  bool take_bytes() { return bpe_ && bpe_->take_bytes(); }

  /// Appends the ids of a nonempty piece.
  void encode(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const {
    if (bpe_) {
      bpe_->encode(piece, workspace, out);
    } else {
      encode_words(piece, workspace, out);
    }
  }

  [[nodiscard]] const Vocabulary& vocabulary() const { return bpe_ ? bpe_->vocabulary() : words_->vocabulary(); }

 private:
  void encode_words(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const;

  std::optional<Bpe> bpe_;
  std::unique_ptr<WordModel> words_;
};

}  // namespace mxlm::text
