#include "text/vocabulary.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "text/hash.hpp"

namespace mxlm::text {

uint32_t& Vocabulary::slot_of(std::string_view token) {
  const size_t mask = slots_.size() - 1;
  size_t slot = hash_bytes(token) & mask;
  while (slots_[slot] != 0 && text_of(entries_[slots_[slot] - 1]) != token) slot = (slot + 1) & mask;
  return slots_[slot];
}

void Vocabulary::reserve_slot() {
  if ((entries_.size() + 1) * 2 <= slots_.size()) return;
  slots_.assign(std::max<size_t>(64, slots_.size() * 2), 0);
  for (size_t i = 0; i < entries_.size(); ++i) slot_of(text_of(entries_[i])) = static_cast<uint32_t>(i + 1);
}

void Vocabulary::append(std::string_view token, int32_t id, uint32_t& slot) {
  if (token.size() > 0xffffffffU) fail("a token of {} bytes is refused", token.size());
  entries_.push_back({bytes_.size(), static_cast<uint32_t>(token.size()), id});
  bytes_ += token;
  slot = static_cast<uint32_t>(entries_.size());
}

bool Vocabulary::add(std::string_view token, int32_t id) {
  reserve_slot();
  uint32_t& slot = slot_of(token);
  if (slot != 0) return false;
  append(token, id, slot);
  return true;
}

void Vocabulary::add_or_replace(std::string_view token, int32_t id) {
  reserve_slot();
  append(token, id, slot_of(token));
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
