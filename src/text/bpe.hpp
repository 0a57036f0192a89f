#pragma once

// Byte-pair encoding.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/json.hpp"
#include "text/vocabulary.hpp"
#include "text/word_cache.hpp"

namespace mxlm::text {

/// The pairs of ids that merge: open addressing over one flat array.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  static constexpr uint32_t kNoRank = 0xffffffffU;

  explicit MergeTable(size_t merges);
  /// A later merge of the same pair replaces the earlier merge, as in the library.
  void set(int32_t left, int32_t right, Merge merge);
  /// The rank is kNoRank if the pair does not merge.
  [[nodiscard]] Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = slot_of(key);; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return slots_[at].merge;
      if (slots_[at].key == kEmpty) return {kNoRank, 0};
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{kNoRank, 0};
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  [[nodiscard]] size_t slot_of(uint64_t key) const { return fold_multiply(key, 0x9e3779b97f4a7c15ULL) & mask_; }

  std::vector<Slot> slots_;
  size_t mask_;
};

/// The "model" of a tokenizer.json: byte-pair encoding of a piece.
class Bpe {
 public:
  /// The state that encoding needs and threads cannot share.
  struct Workspace {
    WordCache cache;
    std::vector<int32_t> ids;
    std::vector<uint32_t> ranks;
    std::vector<int32_t> merged;
    std::vector<uint32_t> previous, next;
    struct Candidate {
      uint32_t rank, at;
    };
    std::vector<Candidate> heap;
    std::string buffer;
  };

  /// Throws Error naming what is missing, wrong or unsupported.
  static Bpe from_json(const Json& model);

  /// Makes encode() take raw bytes instead of characters of the byte alphabet. Returns false, and changes nothing, if
  /// the vocabulary lacks the character of some byte (which then must be treated as a character).
  bool take_bytes();

  /// Appends the ids of a nonempty piece.
  void encode(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const {
    if (piece.size() > WordCache::kMaxPiece) {
      encode_long(piece, workspace, out);
      return;
    }
    encode_cached(piece, workspace, out);
  }

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  explicit Bpe(size_t merges) : merges_(merges) {}
  void encode_cached(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const {
    const uint64_t hash = hash_bytes(piece);
    if (workspace.cache.find(piece, hash, out)) return;
    const size_t before = out.size();
    encode_uncached(piece, workspace, out);
    workspace.cache.insert(piece, hash, std::span<const int32_t>(out).subspan(before));
  }
  /// Cuts a long piece (a whole text, if there is no pre-tokenizer) at every place that no token can cross.
  void encode_long(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const;
  void read_merges(const Json& list);
  void add_merge(std::string_view left, std::string_view right, uint32_t rank, const std::string& where,
                 std::vector<uint64_t>& pairs);
  void encode_uncached(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const;
  void split_characters(std::string_view piece, Workspace& workspace) const;
  [[nodiscard]] int32_t unknown_id() const;
  void merge_short(Workspace& w) const;
  void merge_long(Workspace& w) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  MergeTable inner_pairs_{0};  // neighbouring characters inside tokens that merges make; only their existence counts
  bool ignore_merges_ = false;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  std::optional<std::string> unknown_;
  int32_t unknown_id_ = -1;
  std::string prefix_;                   // continuing_subword_prefix
  std::string suffix_;                   // end_of_word_suffix
  std::array<int32_t, 256> fallback_{};  // id of <0xNN>, or -1

  bool bytes_ = false;
  std::array<int32_t, 256> byte_ids_{};
  Vocabulary raw_;  // tokens as raw bytes, for ignore_merges
};

}  // namespace mxlm::text
