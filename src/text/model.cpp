#include "text/model.hpp"

#include <span>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm::text {

Model Model::from_json(const Json& model) {
  Model out;
  const auto type = model.find("type");
  const std::string_view name = type ? type->string() : "BPE";
  if (name == "BPE") {
    out.bpe_ = Bpe::from_json(model);
  } else if (name == "WordLevel") {
    out.words_ = word_level_from(model);
  } else if (name == "WordPiece") {
    out.words_ = word_piece_from(model);
  } else if (name == "Unigram") {
    out.words_ = unigram_from(model);
  } else {
    fail("{}: the model type {} is not supported (known: BPE WordLevel WordPiece Unigram)", model.where, quote(name));
  }
  return out;
}

void Model::encode_words(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const {
  if (piece.size() > WordCache::kMaxPiece) {
    words_->encode(piece, out);
    return;
  }
  const uint64_t hash = hash_bytes(piece);
  if (workspace.cache.find(piece, hash, out)) return;
  const size_t before = out.size();
  words_->encode(piece, out);
  workspace.cache.insert(piece, hash, std::span<const int32_t>(out).subspan(before));
}

}  // namespace mxlm::text
