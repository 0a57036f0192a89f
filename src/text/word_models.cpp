// WordLevel and WordPiece: models that look up words.

#include <algorithm>
#include <string>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "text/model.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// The "vocab" of a model, an object of tokens and ids.
Vocabulary read_word_vocabulary(const Json& model) {
  Vocabulary out;
  const Json vocabulary = model.at("vocab");
  for (const auto [token, id] : vocabulary.object()) {
    const Json entry{id, vocabulary.where + "." + std::string(token.substr(0, 60))};
    if (!out.add(token, entry.token_id())) fail("{}: the token occurs twice", entry.where);
  }
  if (const auto id = out.finish()) fail("{}: two tokens have the id {}", vocabulary.where, *id);
  return out;
}

/// Words, and the token for unknown words.
class LookUpModel : public WordModel {
 public:
  explicit LookUpModel(const Json& model)
      : words_(read_word_vocabulary(model)),
        unknown_(model.at("unk_token").string()),
        unknown_id_(words_.find(unknown_)) {}
  [[nodiscard]] const Vocabulary& vocabulary() const override { return words_; }

 protected:
  [[nodiscard]] int32_t unknown_id() const {
    if (unknown_id_ < 0) fail("the tokenizer's unk_token {} is not in its vocabulary", quote(unknown_));
    return unknown_id_;
  }

 private:
  Vocabulary words_;
  std::string unknown_;
  int32_t unknown_id_;
};

class WordLevel : public LookUpModel {
 public:
  using LookUpModel::LookUpModel;
  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    const int32_t id = vocabulary().find(piece);
    out.push_back(id >= 0 ? id : unknown_id());
  }
};

class WordPiece : public LookUpModel {
 public:
  explicit WordPiece(const Json& model) : LookUpModel(model), prefix_(model.at("continuing_subword_prefix").string()) {
    const Json most = model.at("max_input_chars_per_word");
    if (most.value.get(most_characters_) != simdjson::SUCCESS) fail("{}: should be an integer from 0 on", most.where);
    vocabulary().for_each([&](std::string_view token, int32_t) { longest_ = std::max(longest_, token.size()); });
  }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) == 0x80; };
    const auto characters = piece.size() - static_cast<size_t>(std::count_if(piece.begin(), piece.end(), continues));
    if (characters > most_characters_) {
      out.push_back(unknown_id());
      return;
    }
    const size_t before = out.size();
    std::string candidate;
    for (size_t start = 0; start < piece.size();) {
      const std::string_view prefix = start > 0 ? std::string_view(prefix_) : std::string_view();
      // No token is longer, so a longer candidate need not be looked up.
      size_t end = start + std::min(piece.size() - start, longest_ > prefix.size() ? longest_ - prefix.size() : 0);
      while (end < piece.size() && continues(piece[end])) --end;
      candidate.clear();
      candidate.append(prefix);
      candidate.append(piece.substr(start, end - start));
      int32_t id = -1;
      while (end > start) {
        id = vocabulary().find(candidate);
        if (id >= 0) break;
        const size_t last = decode_before(piece, end).size;
        end -= last;
        candidate.erase(candidate.size() - last);
      }
      if (id < 0) {  // an unknown part makes the whole piece unknown
        out.resize(before);
        out.push_back(unknown_id());
        return;
      }
      out.push_back(id);
      start = end;
    }
  }

 private:
  std::string prefix_;
  uint64_t most_characters_ = 0;
  size_t longest_ = 0;
};

}  // namespace

std::unique_ptr<WordModel> word_level_from(const Json& model) { return std::make_unique<WordLevel>(model); }
std::unique_ptr<WordModel> word_piece_from(const Json& model) { return std::make_unique<WordPiece>(model); }

}  // namespace mxlm::text
