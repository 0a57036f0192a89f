#include "text/bpe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/error.hpp"
#include "text/byte_alphabet.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// For pieces up to this length, scanning for the best pair beats a heap.
constexpr size_t kShortPiece = 48;

}  // namespace

MergeTable::MergeTable(size_t merges)
    : slots_(std::bit_ceil(std::max<size_t>(16, merges + merges / 2))), mask_(slots_.size() - 1) {}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  size_t at = slot_of(key);
  while (slots_[at].key != kEmpty && slots_[at].key != key) at = (at + 1) & mask_;
  slots_[at] = {key, merge};
}

Bpe Bpe::from_json(const Json& model) {
  const auto merges = model.find("merges");
  if (!merges)
    fail("{}: a tokenizer without merges is not a BPE tokenizer; the file must hold \"merges\"", model.where);
  if (const auto dropout = model.find("dropout")) {
    double p = 0;
    if (dropout->value.get(p) != simdjson::SUCCESS || p != 0) fail("{}: dropout is not supported", dropout->where);
  }

  Bpe out(merges->array().size());
  const Json vocabulary = model.at("vocab");
  for (const auto [token, id] : vocabulary.object()) {
    const Json entry{id, vocabulary.where + "." + std::string(token.substr(0, 60))};
    if (!out.vocabulary_.add(token, entry.token_id())) fail("{}: the token occurs twice", entry.where);
  }
  if (const auto id = out.vocabulary_.finish()) fail("{}: two tokens have the id {}", vocabulary.where, *id);

  out.ignore_merges_ = model.boolean_or("ignore_merges", false);
  out.fuse_unknown_ = model.boolean_or("fuse_unk", false);
  out.byte_fallback_ = model.boolean_or("byte_fallback", false);
  if (const auto unknown = model.find("unk_token")) {
    out.unknown_ = std::string(unknown->string());
    out.unknown_id_ = out.vocabulary_.find(*out.unknown_);
  }
  if (const auto prefix = model.find("continuing_subword_prefix")) out.prefix_ = prefix->string();
  if (const auto suffix = model.find("end_of_word_suffix")) out.suffix_ = suffix->string();
  for (unsigned b = 0; b < 256; ++b) out.fallback_[b] = out.vocabulary_.find(fmt::format("<0x{:02X}>", b));
  out.read_merges(*merges);
  return out;
}

void Bpe::read_merges(const Json& list) {
  uint32_t rank = 0;
  size_t index = 0;
  std::vector<uint64_t> pairs;
  for (const auto element : list.array()) {
    const auto where = [&] { return list.item(element, index).where; };
    std::string_view line;
    if (element.get(line) == simdjson::SUCCESS) {
      if (!line.starts_with("#version")) {
        const size_t space = line.find(' ');
        if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
          fail("{}: a merge should be two tokens with a space between them", where());
        }
        add_merge(line.substr(0, space), line.substr(space + 1), rank++, list.where, pairs);
      }
    } else {
      simdjson::dom::array pair;
      std::string_view left;
      std::string_view right;
      if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
          pair.at(1).get(right) != simdjson::SUCCESS) {
        fail("{}: a merge should be \"left right\" or [\"left\", \"right\"]", where());
      }
      add_merge(left, right, rank++, list.where, pairs);
    }
    ++index;
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  inner_pairs_ = MergeTable(pairs.size());
  for (const uint64_t pair : pairs) {
    inner_pairs_.set(static_cast<int32_t>(pair >> 32), static_cast<int32_t>(pair & 0xffffffffU), {0, 0});
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, uint32_t rank, const std::string& where,
                    std::vector<uint64_t>& pairs) {
  const auto id_of = [&](std::string_view token) {
    const int32_t id = vocabulary_.find(token);
    if (id < 0)
      fail("{}: merge {} needs the token '{}', which is not in the vocabulary", where, rank, token.substr(0, 100));
    return id;
  };
  const int32_t left_id = id_of(left);
  const int32_t right_id = id_of(right);
  if (right.size() <= prefix_.size()) {
    fail("{}: merge {} adds nothing to its left side", where, rank);  // also an empty right side
  }
  if (left.empty()) fail("{}: merge {} has an empty left side", where, rank);
  std::string whole(left);
  whole += right.substr(prefix_.size());
  merges_.set(left_id, right_id, {rank, id_of(whole)});
  if (!prefix_.empty()) return;
  // The pair where the two sides meet; pairs inside a side came with the merges that made the side.
  pairs.push_back(static_cast<uint64_t>(decode_before(left, left.size()).code) << 32 | decode_at(right, 0).code);
}

bool Bpe::take_bytes() {
  if (!prefix_.empty() || !suffix_.empty()) return false;
  const ByteAlphabet& alphabet = ByteAlphabet::get();
  for (unsigned b = 0; b < 256; ++b) {
    std::string character;
    append_utf8(character, alphabet.character(static_cast<unsigned char>(b)));
    byte_ids_[b] = vocabulary_.find(character);
    if (byte_ids_[b] < 0) return false;
  }
  bytes_ = true;
  if (ignore_merges_) {
    std::string raw;
    vocabulary_.for_each([&](std::string_view token, int32_t id) {
      raw.clear();
      if (alphabet.unmap(token, raw)) raw_.add(raw, id);
    });
  }
  return true;
}

int32_t Bpe::unknown_id() const {
  if (unknown_id_ < 0)
    fail("the tokenizer's unk_token '{}' is not in its vocabulary", unknown_.value_or("").substr(0, 100));
  return unknown_id_;
}

void Bpe::split_characters(std::string_view piece, Workspace& w) const {
  bool pending = false;  // an unknown id that waits for others to fuse with
  for (size_t at = 0; at < piece.size();) {
    const size_t size = decode_at(piece, at).size;
    std::string_view symbol = piece.substr(at, size);
    const bool continues = at > 0 && !prefix_.empty();
    at += size;
    const bool ends = at == piece.size() && !suffix_.empty();
    if (continues || ends) {
      w.buffer = continues ? prefix_ : std::string();
      w.buffer += symbol;
      if (ends) w.buffer += suffix_;
      symbol = w.buffer;
    }
    const int32_t id = vocabulary_.find(symbol);
    if (id >= 0) {
      if (pending) w.ids.push_back(unknown_id());
      pending = false;
      w.ids.push_back(id);
      continue;
    }
    if (byte_fallback_ && std::all_of(symbol.begin(), symbol.end(),
                                      [&](char c) { return fallback_[static_cast<unsigned char>(c)] >= 0; })) {
      // The library adds these before an unknown id that still waits, and so does this code.
      for (const char c : symbol) w.ids.push_back(fallback_[static_cast<unsigned char>(c)]);
      continue;
    }
    if (!unknown_) continue;
    if (pending && !fuse_unknown_) w.ids.push_back(unknown_id());
    static_cast<void>(unknown_id());  // must exist
    pending = true;
  }
  if (pending) w.ids.push_back(unknown_id());
}

void Bpe::encode_long(std::string_view piece, Workspace& w, std::vector<int32_t>& out) const {
  if (bytes_ || ignore_merges_ || !prefix_.empty() || !suffix_.empty()) {
    encode_uncached(piece, w, out);
    return;
  }
  size_t begin = 0;
  uint32_t previous = 0;
  bool previous_known = false;
  for (size_t at = 0; at < piece.size();) {
    const Decoded d = decode_at(piece, at);
    const bool known = vocabulary_.find(piece.substr(at, d.size)) >= 0;
    // Beside a character without a token, unknown ids may fuse or bytes may enter; so cut only between two known
    // characters.
    if (known && previous_known &&
        inner_pairs_.find(static_cast<int32_t>(previous), static_cast<int32_t>(d.code)).rank == MergeTable::kNoRank) {
      const std::string_view part = piece.substr(begin, at - begin);
      if (part.size() > WordCache::kMaxPiece) {
        encode_uncached(part, w, out);
      } else {
        encode_cached(part, w, out);
      }
      begin = at;
    }
    previous = d.code;
    previous_known = known;
    at += d.size;
  }
  encode_uncached(piece.substr(begin), w, out);
}

void Bpe::encode_uncached(std::string_view piece, Workspace& w, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    const int32_t id = (bytes_ ? raw_ : vocabulary_).find(piece);
    if (id >= 0) {
      out.push_back(id);
      return;
    }
  }
  w.ids.clear();
  if (bytes_) {
    for (const char c : piece) w.ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  } else {
    split_characters(piece, w);
  }
  if (w.ids.size() <= kShortPiece) {
    merge_short(w);
  } else {
    merge_long(w);
  }
  out.insert(out.end(), w.ids.begin(), w.ids.end());
}

void Bpe::merge_short(Workspace& w) const {
  size_t n = w.ids.size();
  if (n < 2) return;
  std::array<uint32_t, kShortPiece> ranks;  // of the pair (i, i + 1)
  std::array<int32_t, kShortPiece> merged;  // and its id
  int32_t* ids = w.ids.data();
  const auto look = [&](size_t i) {
    const MergeTable::Merge m = merges_.find(ids[i], ids[i + 1]);
    ranks[i] = m.rank;
    merged[i] = m.id;
  };
  for (size_t i = 0; i + 1 < n; ++i) look(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == MergeTable::kNoRank) break;
    ids[best] = merged[best];
    for (size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    --n;
    if (best + 1 < n) look(best);
    if (best > 0) look(best - 1);
  }
  w.ids.resize(n);
}

void Bpe::merge_long(Workspace& w) const {
  const size_t n = w.ids.size();
  if (n >= 0xffffffffU) fail("a piece of {} characters without a place to cut it is too long", n);
  constexpr uint32_t kNone = 0xffffffffU;
  w.ranks.resize(n);
  w.merged.resize(n);
  w.previous.resize(n);
  w.next.resize(n);
  w.heap.clear();
  using Candidate = Workspace::Candidate;
  // The front of the heap is its largest entry: the lowest rank, and the leftmost of equal ranks.
  const auto after = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  const auto look = [&](uint32_t i) {
    const uint32_t right = w.next[i];
    const MergeTable::Merge m =
        right == kNone ? MergeTable::Merge{MergeTable::kNoRank, 0} : merges_.find(w.ids[i], w.ids[right]);
    w.ranks[i] = m.rank;
    w.merged[i] = m.id;
    return m.rank != MergeTable::kNoRank;
  };
  for (size_t i = 0; i < n; ++i) {
    w.previous[i] = i == 0 ? kNone : static_cast<uint32_t>(i - 1);
    w.next[i] = i + 1 == n ? kNone : static_cast<uint32_t>(i + 1);
  }
  for (uint32_t i = 0; i < n; ++i) {
    if (look(i)) w.heap.push_back({w.ranks[i], i});
  }
  std::make_heap(w.heap.begin(), w.heap.end(), after);
  while (!w.heap.empty()) {
    std::pop_heap(w.heap.begin(), w.heap.end(), after);
    const Candidate top = w.heap.back();
    w.heap.pop_back();
    // The pair has changed since. Both sides only grow, so no other pair at this place can have the same rank.
    if (w.ranks[top.at] != top.rank) continue;
    const uint32_t right = w.next[top.at];
    w.ids[top.at] = w.merged[top.at];
    w.ids[right] = -1;
    w.ranks[right] = MergeTable::kNoRank;
    w.next[top.at] = w.next[right];
    if (w.next[right] != kNone) w.previous[w.next[right]] = top.at;
    for (const uint32_t i : {w.previous[top.at], top.at}) {
      if (i == kNone || !look(i)) continue;
      w.heap.push_back({w.ranks[i], i});
      std::push_heap(w.heap.begin(), w.heap.end(), after);
    }
  }
  std::erase(w.ids, -1);
}

}  // namespace mxlm::text
