#pragma once

// A cache of encoded words.

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/hash.hpp"

namespace mxlm::text {

/// Pieces that were encoded before, and their ids. Holds a limited number and starts again when full. For one thread.
class WordCache {
 public:
  /// Longer pieces are rare and not kept.
  static constexpr size_t kMaxPiece = 256;

  WordCache() { reset(kFirstSlots); }

  /// Appends the ids of `piece` to `out` and returns true if they are known. `hash` is hash_bytes(piece).
  bool find(std::string_view piece, uint64_t hash, std::vector<int32_t>& out) const {
    for (size_t at = hash & mask_;; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key_size == 0) return false;
      if (slot.hash != hash || slot.key_size != piece.size() ||
          std::memcmp(keys_.data() + slot.key, piece.data(), piece.size()) != 0) {
        continue;
      }
      if (slot.count == 1) {
        out.push_back(static_cast<int32_t>(slot.ids));
      } else {
        const auto first = ids_.begin() + slot.ids;
        out.insert(out.end(), first, first + slot.count);
      }
      return true;
    }
  }

  /// Stores a piece that find did not know.
  void insert(std::string_view piece, uint64_t hash, std::span<const int32_t> ids) {
    if (piece.empty() || piece.size() > kMaxPiece || ids.size() > 0xffff) return;
    if ((used_ + 1) * 2 > slots_.size()) grow();
    Slot slot{hash, static_cast<uint32_t>(keys_.size()), static_cast<uint16_t>(piece.size()),
              static_cast<uint16_t>(ids.size()), 0};
    keys_.append(piece);
    if (ids.size() == 1) {
      slot.ids = static_cast<uint32_t>(ids[0]);
    } else {
      slot.ids = static_cast<uint32_t>(ids_.size());
      ids_.insert(ids_.end(), ids.begin(), ids.end());
    }
    place(slot);
  }

 private:
  static constexpr size_t kFirstSlots = size_t{1} << 12;
  static constexpr size_t kMaxSlots = size_t{1} << 18;

  struct Slot {
    uint64_t hash;
    uint32_t key;       // offset in keys_
    uint16_t key_size;  // 0: empty
    uint16_t count;
    uint32_t ids;  // the id itself if count is 1, else an offset in ids_
  };

  void place(const Slot& slot) {
    size_t at = slot.hash & mask_;
    while (slots_[at].key_size != 0) at = (at + 1) & mask_;
    slots_[at] = slot;
    ++used_;
  }
  void reset(size_t slots) {
    slots_.assign(slots, Slot{});
    mask_ = slots - 1;
    used_ = 0;
  }
  void grow() {
    if (slots_.size() == kMaxSlots) {
      reset(kFirstSlots);
      keys_.clear();
      ids_.clear();
      return;
    }
    const std::vector<Slot> old = std::move(slots_);
    reset(old.size() * 2);
    for (const Slot& slot : old) {
      if (slot.key_size != 0) place(slot);
    }
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t used_ = 0;
  std::string keys_;
  std::vector<int32_t> ids_;
};

}  // namespace mxlm::text
