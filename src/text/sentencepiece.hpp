#pragma once

// SentencePiece model files (tokenizer.model).

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mxlm::text {

/// The pieces of a SentencePiece model file (tokenizer.model, a protocol buffer). The sentencepiece library would read
/// the file too, but its interface hides the type of a piece and the normaliser. transformers takes only the pieces and
/// leaves the splitting to `tokenizers`, and so does mxlm.
struct SentencePieceModel {
  enum class Type : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };
  struct Piece {
    std::string_view text;  // in the file's bytes
    float score = 0;
    Type type = Type::normal;
  };
  enum class Algorithm : uint8_t { unigram = 1, bpe = 2 };

  std::vector<Piece> pieces;  // by id
  Algorithm algorithm = Algorithm::unigram;
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  int32_t unk_id = 0, bos_id = 1, eos_id = 2;  // below 0: none
  std::string unk_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>";
  std::string_view precompiled_charsmap;

  /// `bytes` is the whole file and outlives the model. Messages use `name`. Throws Error if the bytes are not a
  /// SentencePiece model of one of these algorithms, if a piece is empty, not UTF-8 or repeated, or if there are too
  /// many pieces.
  static SentencePieceModel parse(std::string_view bytes, const std::string& name);

  /// The pairs of pieces that make another piece, ordered by the id of that piece and then by the length of the left
  /// side: `generate_merges` of transformers 5.23. Throws Error if long pieces would make that take too long.
  [[nodiscard]] std::vector<std::pair<std::string_view, std::string_view>> merges(const std::string& name) const;
};

}  // namespace mxlm::text
