#include "text/vocabulary.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "text/hash.hpp"

namespace mxlm::text {

void Vocabulary::grow() {
  slots_.assign(std::max<size_t>(64, slots_.size() * 2), 0);
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t slot = hash_bytes(text_of(entries_[i])) & mask;
    while (slots_[slot] != 0) slot = (slot + 1) & mask;
    slots_[slot] = static_cast<uint32_t>(i + 1);
  }
}

bool Vocabulary::add(std::string_view token, int32_t id) {
  if (token.size() > 0xffffffffU) fail("a token of {} bytes is refused", token.size());
  if ((entries_.size() + 1) * 2 > slots_.size()) grow();
  const size_t mask = slots_.size() - 1;
  size_t slot = hash_bytes(token) & mask;
  for (; slots_[slot] != 0; slot = (slot + 1) & mask) {
    if (text_of(entries_[slots_[slot] - 1]) == token) return false;
  }
  entries_.push_back({bytes_.size(), static_cast<uint32_t>(token.size()), id});
  bytes_ += token;
  slots_[slot] = static_cast<uint32_t>(entries_.size());
  return true;
}

std::optional<int32_t> Vocabulary::finish() {
  by_id_.clear();
  by_id_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) by_id_.emplace_back(entries_[i].id, static_cast<uint32_t>(i));
  std::sort(by_id_.begin(), by_id_.end());
  for (size_t i = 1; i < by_id_.size(); ++i) {
    if (by_id_[i].first == by_id_[i - 1].first) return by_id_[i].first;
  }
  return std::nullopt;
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash_bytes(token) & mask; slots_[slot] != 0; slot = (slot + 1) & mask) {
    const Entry& e = entries_[slots_[slot] - 1];
    if (text_of(e) == token) return e.id;
  }
  return -1;
}

std::optional<std::string_view> Vocabulary::token_of(int32_t id) const {
  const auto it = std::lower_bound(by_id_.begin(), by_id_.end(), id,
                                   [](const auto& entry, int32_t wanted) { return entry.first < wanted; });
  if (it == by_id_.end() || it->first != id) return std::nullopt;
  return text_of(entries_[it->second]);
}

int32_t Vocabulary::max_id() const { return by_id_.empty() ? -1 : by_id_.back().first; }

}  // namespace mxlm::text
