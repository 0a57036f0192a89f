#include "text/added_tokens.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {

bool AddedTokens::Finder::add(std::string_view pattern, int32_t id) {
  uint32_t node = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const auto byte = static_cast<unsigned char>(pattern[i]);
    uint32_t next = i == 0 ? roots_[byte] : nodes_[node].child;
    while (i > 0 && next != 0 && nodes_[next].byte != byte) next = nodes_[next].sibling;
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      Node fresh;
      fresh.byte = byte;
      if (i == 0) {
        roots_[byte] = next;
      } else {
        fresh.sibling = nodes_[node].child;
        nodes_[node].child = next;
      }
      nodes_.push_back(fresh);
    }
    node = next;
  }
  if (nodes_[node].id >= 0) return false;
  nodes_[node].id = id;
  return true;
}

size_t AddedTokens::Finder::find(std::string_view text, size_t at, size_t& end, int32_t& id) const {
  for (; at < text.size(); ++at) {
    uint32_t node = roots_[static_cast<unsigned char>(text[at])];
    if (node == 0) continue;
    int32_t found = -1;
    size_t i = at + 1;
    while (true) {
      if (nodes_[node].id >= 0) {
        found = nodes_[node].id;
        end = i;
      }
      if (i == text.size()) break;
      const auto byte = static_cast<unsigned char>(text[i]);
      node = nodes_[node].child;
      while (node != 0 && nodes_[node].byte != byte) node = nodes_[node].sibling;
      if (node == 0) break;
      ++i;
    }
    if (found >= 0) {
      id = found;
      return at;
    }
  }
  return std::string_view::npos;
}

int32_t AddedTokens::add(AddedToken token, const Vocabulary& vocabulary, const Normalizer& normalizer,
                         int32_t& next_id) {
  int32_t id = vocabulary.find(token.content);
  if (const auto known = find(token.content)) id = *known;
  if (id < 0) id = next_id++;
  std::string pattern = token.content;
  if (token.normalized) {
    WorkText work(token.content, 0);
    normalizer.apply(work);
    pattern = work.view();
  }
  ids_[token.content] = id;
  tokens_[id] = Token{std::move(token), std::move(pattern)};
  return id;
}

AddedTokens AddedTokens::from_json(const std::optional<Json>& list, const std::vector<AddedToken>& more,
                                   const Vocabulary& vocabulary, const Normalizer& normalizer) {
  AddedTokens out;
  auto next_id = static_cast<int32_t>(vocabulary.count());
  size_t index = 0;
  size_t misnumbered = 0;
  std::string first_misnumbered;
  if (list) {
    for (const auto element : list->array()) {
      const Json entry = list->item(element, index++);
      AddedToken token;
      token.content = entry.at("content").string();
      token.single_word = entry.at("single_word").boolean();
      token.lstrip = entry.at("lstrip").boolean();
      token.rstrip = entry.at("rstrip").boolean();
      token.normalized = entry.at("normalized").boolean();
      token.special = entry.at("special").boolean();
      const int32_t stated = entry.at("id").token_id();
      if (token.content.empty()) continue;
      const std::string content = token.content.substr(0, 100);
      const int32_t id = out.add(std::move(token), vocabulary, normalizer, next_id);
      if (id != stated && misnumbered++ == 0) {
        first_misnumbered = fmt::format("'{}' says id {} but has id {}", content, stated, id);
      }
    }
  }
  if (misnumbered > 0) {
    log_warn("{}: {} added tokens have other ids than the file says, as the tokenizers library reads it; the first: {}",
             list->where, misnumbered, first_misnumbered);
  }
  for (const AddedToken& token : more) {
    if (!token.content.empty()) out.add(token, vocabulary, normalizer, next_id);
  }
  for (const auto& [id, token] : out.tokens_) {
    if (token.pattern.empty()) {
      fail(
          "{}: the normalizer leaves nothing of the added token {}, with which the tokenizers library cuts a text "
          "between all its characters; give the token \"normalized\": false",
          list ? list->where : "added tokens", quote(token.content.substr(0, 100)));
    }
    if (!out.finders_[token.normalized ? 1 : 0].add(token.pattern, id)) {
      fail("{}: two added tokens are both '{}' once normalised", list ? list->where : "added tokens",
           token.pattern.substr(0, 100));
    }
  }
  return out;
}

void AddedTokens::split(std::string_view text, bool normalized, bool special, std::vector<Part>& out) const {
  const Finder& finder = finders_[normalized ? 1 : 0];
  size_t done = 0;  // the end of the last part
  size_t at = 0;
  int32_t id = -1;
  size_t end = 0;
  size_t space_begin = 0;  // the last run of spaces that an rstrip measured
  size_t space_end = 0;
  while (!finder.empty()) {
    size_t begin = finder.find(text, at, end, id);
    if (begin == std::string_view::npos) break;
    at = end;
    const Token& token = tokens_.at(id);
    if (token.special && !special) continue;
    if (token.single_word) {
      const bool left = begin > 0 && is_word(decode_before(text, begin).code);
      const bool right = end < text.size() && is_word(decode_at(text, end).code);
      if (left || right) continue;
    }
    if (token.lstrip) {
      while (begin > done) {
        const Decoded d = decode_before(text, begin);
        if (!is_space(d.code)) break;
        begin -= d.size;
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip && end >= space_begin && end < space_end) {
      end = space_end;  // inside a run that was measured before
    } else if (token.rstrip) {
      space_begin = end;
      while (end < text.size()) {
        const Decoded d = decode_at(text, end);
        if (!is_space(d.code)) break;
        end += d.size;
      }
      space_end = end;
    }
    if (done < begin) out.push_back({done, begin, -1});
    if (begin < end) out.push_back({begin, end, id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

std::optional<int32_t> AddedTokens::find(std::string_view content) const {
  const auto it = ids_.find(content);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::optional<std::string_view> AddedTokens::token_of(int32_t id) const {
  const auto it = tokens_.find(id);
  if (it == tokens_.end()) return std::nullopt;
  return it->second.pattern;
}

}  // namespace mxlm::text
