#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mxlm::text {

/// What a SentencePiece model file (tokenizer.model, a protocol buffer) says of its pieces. The sentencepiece library
/// would read the file too, but its interface tells neither the type of a piece nor the normaliser, and transformers
/// takes the pieces alone and leaves the splitting to `tokenizers`; so do we.
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
  int32_t unk_id = 0, bos_id = 1, eos_id = 2;  // below 0: there is none
  std::string unk_piece = "<unk>", bos_piece = "<s>", eos_piece = "</s>";
  std::string_view precompiled_charsmap;

  /// `bytes` is the whole file and outlives the model; `name` is used in messages. Throws Error if it is no
  /// SentencePiece model of one of those algorithms, if a piece is empty, no UTF-8 or there twice, or if there are too
  /// many.
  static SentencePieceModel parse(std::string_view bytes, const std::string& name);

  /// The pairs of pieces that make another piece, the pairs of a lower id first and of one id those with the shorter
  /// left side: `generate_merges` of transformers 5.23. Throws Error where long pieces would make that take too long.
  [[nodiscard]] std::vector<std::pair<std::string_view, std::string_view>> merges(const std::string& name) const;
};

}  // namespace mxlm::text
