#pragma once

// The tokens of a vocabulary and their ids.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mxlm::text {

/// Tokens and their ids, in both directions. Memory grows with the number of tokens, never with the ids.
class Vocabulary {
 public:
  /// Returns false, and adds nothing, if the token exists already.
  bool add(std::string_view token, int32_t id);
  /// The token is found by this id from now on; an id that it had before still stands for it.
  void add_or_replace(std::string_view token, int32_t id);
  /// Call once after the last add. Returns an id that two tokens share, if there is one.
  std::optional<int32_t> finish();

  /// The token's id, or -1.
  [[nodiscard]] int32_t find(std::string_view token) const;
  [[nodiscard]] std::optional<std::string_view> token_of(int32_t id) const;
  [[nodiscard]] size_t count() const { return entries_.size(); }
  /// Returns -1 if there is no token.
  [[nodiscard]] int32_t max_id() const;

  template <typename F>
  void for_each(F&& f) const {
    for (const Entry& e : entries_) f(text_of(e), e.id);
  }

 private:
  struct Entry {
    size_t begin;
    uint32_t size;
    int32_t id;
  };
  [[nodiscard]] std::string_view text_of(const Entry& e) const {
    return std::string_view(bytes_).substr(e.begin, e.size);
  }
  /// The slot of a token, or the free one where it belongs.
  [[nodiscard]] uint32_t& slot_of(std::string_view token);
  void append(std::string_view token, int32_t id, uint32_t& slot);
  void reserve_slot();

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> slots_;                      // index into entries_ plus one, 0 is empty
  std::vector<std::pair<int32_t, uint32_t>> by_id_;  // id, index; ascending
};

}  // namespace mxlm::text
