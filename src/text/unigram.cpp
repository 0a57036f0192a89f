// Unigram: the division of a piece into tokens that has the largest sum of scores.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "text/model.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// The distance of an unknown character's score below the lowest score of the vocabulary.
constexpr double kUnknownPenalty = 10;

/// Tokens by their bytes. The children of a node are neighbours, in the order of their bytes.
class Trie {
 public:
  /// `tokens` are sorted and unique; their values are ids.
  explicit Trie(const std::vector<std::pair<std::string_view, int32_t>>& tokens) {
    struct Range {
      size_t begin, end, depth;
    };
    std::vector<Range> ranges = {{0, tokens.size(), 0}};  // the tokens below each node
    nodes_.push_back({});
    // Breadth first, so that siblings are neighbours.
    for (size_t n = 0; n < nodes_.size(); ++n) {
      Range r = ranges[n];
      if (r.begin < r.end && tokens[r.begin].first.size() == r.depth) nodes_[n].id = tokens[r.begin++].second;
      nodes_[n].children = static_cast<uint32_t>(nodes_.size());
      while (r.begin < r.end) {
        const char byte = tokens[r.begin].first[r.depth];
        size_t end = r.begin;
        while (end < r.end && tokens[end].first[r.depth] == byte) ++end;
        nodes_.push_back({.byte = static_cast<unsigned char>(byte)});
        ranges.push_back({r.begin, end, r.depth + 1});
        ++nodes_[n].count;
        r.begin = end;
      }
    }
  }

  /// Calls `found(bytes, id)` for each token at the start of `text`, the shortest first.
  template <typename F>
  void prefixes(std::string_view text, F&& found) const {
    const Node* node = nodes_.data();
    for (size_t at = 0; at < text.size(); ++at) {
      const auto byte = static_cast<unsigned char>(text[at]);
      const Node* first = nodes_.data() + node->children;
      const Node* last = first + node->count;
      const Node* child = std::lower_bound(first, last, byte, [](const Node& n, unsigned b) { return n.byte < b; });
      if (child == last || child->byte != byte) return;
      node = child;
      if (node->id >= 0) found(at + 1, node->id);
    }
  }

 private:
  struct Node {
    uint32_t children = 0;
    int32_t id = -1;
    uint16_t count = 0;
    uint8_t byte = 0;
  };
  std::vector<Node> nodes_;
};

class Unigram : public WordModel {
 public:
  explicit Unigram(const Json& model) : byte_fallback_(model.boolean_or("byte_fallback", false)) {
    const Json list = model.at("vocab");
    size_t bytes = 0;
    for (const auto element : list.array()) {
      const auto where = [&] { return list.item(element, scores_.size()).where; };
      simdjson::dom::array pair;
      std::string_view token;
      double score = 0;
      if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(token) != simdjson::SUCCESS ||
          pair.at(1).get(score) != simdjson::SUCCESS) {
        fail("{}: should be [token, score]", where());
      }
      if (scores_.size() > static_cast<size_t>(kMaxTokenId)) fail("{}: more than {} tokens", list.where, kMaxTokenId);
      bytes += token.size();
      if (bytes > kMostBytes) fail("{}: its tokens have more than {} bytes", list.where, kMostBytes);
      // Of a token that is there twice the last id and score count, as in `tokenizers`.
      tokens_.add_or_replace(token, static_cast<int32_t>(scores_.size()));
      scores_.push_back(score);
    }
    if (scores_.empty()) fail("{}: there are no tokens", list.where);
    tokens_.finish();
    unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
    if (const auto unknown = model.find("unk_id")) {
      unknown_id_ = unknown->token_id();
      if (static_cast<size_t>(unknown_id_) >= scores_.size()) {
        fail("{}: there is no token {}", unknown->where, unknown_id_);
      }
    }
    for (unsigned b = 0; b < 256; ++b) fallback_[b] = tokens_.find(fmt::format("<0x{:02X}>", b));
    std::vector<std::pair<std::string_view, int32_t>> sorted;
    sorted.reserve(scores_.size());
    tokens_.for_each([&](std::string_view token, int32_t id) {
      if (tokens_.find(token) == id) sorted.emplace_back(token, id);
    });
    std::sort(sorted.begin(), sorted.end());
    trie_.emplace(sorted);
  }

  [[nodiscard]] const Vocabulary& vocabulary() const override { return tokens_; }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    std::vector<Best> best(piece.size() + 1);
    const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
      Best& b = best[end];
      if (b.id != kNone && score <= b.score) return;
      b = {score, begin, id};
    };
    for (size_t at = 0; at < piece.size();) {
      const size_t character = decode_at(piece, at).size;
      const double before = best[at].score;
      bool alone = false;  // the character is a token
      trie_->prefixes(piece.substr(at), [&](size_t bytes, int32_t id) {
        offer(at, at + bytes, scores_[static_cast<size_t>(id)] + before, id);
        alone = alone || bytes == character;
      });
      if (!alone) offer(at, at + character, unknown_score_ + before, unknown_id());
      at += character;
    }
    // Reads back from the end; neighbouring unknown characters become one.
    std::vector<std::pair<size_t, size_t>> parts;
    bool after_unknown = false;
    for (size_t end = piece.size(); end > 0; end = best[end].begin) {
      const bool unknown = best[end].id == unknown_id_;
      if (unknown && after_unknown) {
        parts.back().first = best[end].begin;
      } else {
        parts.emplace_back(best[end].begin, end);
      }
      after_unknown = unknown;
    }
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      append(piece.substr(part->first, part->second - part->first), out);
    }
  }

 private:
  static constexpr int32_t kNone = -2;
  static constexpr size_t kMostBytes = size_t{1} << 24;
  struct Best {
    double score = 0;
    size_t begin = 0;
    int32_t id = kNone;
  };

  [[nodiscard]] int32_t unknown_id() const {
    if (unknown_id_ < 0)
      fail("a text holds a character that is not in the vocabulary, and the tokenizer has no unk_id");
    return unknown_id_;
  }

  /// The token of `part`, else its bytes, else the unknown token.
  void append(std::string_view part, std::vector<int32_t>& out) const {
    if (const int32_t id = tokens_.find(part); id >= 0) {
      out.push_back(id);
      return;
    }
    const auto byte_id = [&](char c) { return fallback_[static_cast<unsigned char>(c)]; };
    if (byte_fallback_ && std::all_of(part.begin(), part.end(), [&](char c) { return byte_id(c) >= 0; })) {
      for (const char c : part) out.push_back(byte_id(c));
      return;
    }
    out.push_back(unknown_id());
  }

  bool byte_fallback_;
  Vocabulary tokens_;
  std::vector<double> scores_;  // by id
  double unknown_score_ = 0;
  int32_t unknown_id_ = -1;
  std::array<int32_t, 256> fallback_{};  // id of <0xNN>, or -1
  std::optional<Trie> trie_;
};

}  // namespace

std::unique_ptr<WordModel> unigram_from(const Json& model) { return std::make_unique<Unigram>(model); }

}  // namespace mxlm::text
