#include "text/sentencepiece.hpp"

#include <bit>
#include <unordered_set>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

namespace mxlm::text {
namespace {

/// Reads the fields of a protocol buffer message; checks every length against the remaining bytes.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& name) : rest_(bytes), name_(name) {}

  /// Moves to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff) bad();
    field_ = static_cast<uint32_t>(key >> 3);
    wire_ = static_cast<unsigned>(key & 7);
    switch (wire_) {
      case kVarint:
        number_ = varint();
        return true;
      case kFixed64:
        bytes_ = take(8);
        return true;
      case kBytes:
        bytes_ = take(varint());
        return true;
      case kFixed32:
        bytes_ = take(4);
        return true;
      default:
        bad();
    }
  }
  [[nodiscard]] uint32_t field() const { return field_; }

  [[nodiscard]] std::string_view bytes() const {
    if (wire_ != kBytes) bad();
    return bytes_;
  }
  [[nodiscard]] uint64_t number() const {
    if (wire_ != kVarint) bad();
    return number_;
  }
  [[nodiscard]] float real() const {
    if (wire_ != kFixed32) bad();
    uint32_t bits = 0;
    for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<unsigned char>(bytes_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  static constexpr unsigned kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

  [[noreturn]] void bad() const { fail("{}: this is not a SentencePiece model; get the file again.", name_); }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7fU) << shift;
      if (byte < 0x80) return value;
    }
    bad();
  }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) bad();
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }

  std::string_view rest_;
  const std::string& name_;
  uint32_t field_ = 0;
  unsigned wire_ = 0;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

/// A negative int32 is stored as ten bytes; its low 32 bits are the number.
int32_t signed_number(uint64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); }

// The numbers of the fields come from sentencepiece_model.proto.

SentencePieceModel::Piece read_piece(std::string_view bytes, size_t id, const std::string& name) {
  SentencePieceModel::Piece piece;
  for (MessageReader in(bytes, name); in.next();) {
    if (in.field() == 1) piece.text = in.bytes();
    if (in.field() == 2) piece.score = in.real();
    if (in.field() == 3 && in.number() >= 1 && in.number() <= 6) {
      piece.type = static_cast<SentencePieceModel::Type>(in.number());
    }
  }
  if (piece.text.empty()) fail("{}: piece {} is empty", name, id);
  if (!valid_utf8(piece.text)) fail("{}: piece {}, {}, is not UTF-8", name, id, quote(piece.text));
  return piece;
}

void read_trainer(SentencePieceModel& out, std::string_view bytes, const std::string& name) {
  for (MessageReader in(bytes, name); in.next();) {
    switch (in.field()) {
      case 3:
        if (in.number() != 1 && in.number() != 2) {
          fail("{}: a SentencePiece model of words or characters is not supported, only BPE and unigram are", name);
        }
        out.algorithm = static_cast<SentencePieceModel::Algorithm>(in.number());
        break;
      case 35:
        out.byte_fallback = in.number() != 0;
        break;
      case 40:
        out.unk_id = signed_number(in.number());
        break;
      case 41:
        out.bos_id = signed_number(in.number());
        break;
      case 42:
        out.eos_id = signed_number(in.number());
        break;
      case 45:
        out.unk_piece = in.bytes();
        break;
      case 46:
        out.bos_piece = in.bytes();
        break;
      case 47:
        out.eos_piece = in.bytes();
        break;
      default:
        break;
    }
  }
  for (const std::string* piece : {&out.unk_piece, &out.bos_piece, &out.eos_piece}) {
    if (!valid_utf8(*piece)) fail("{}: the name {} of a special piece is not UTF-8", name, quote(*piece));
  }
}

void read_normalizer(SentencePieceModel& out, std::string_view bytes, const std::string& name) {
  for (MessageReader in(bytes, name); in.next();) {
    if (in.field() == 2) out.precompiled_charsmap = in.bytes();
    if (in.field() == 3) out.add_dummy_prefix = in.number() != 0;
  }
}

}  // namespace

SentencePieceModel SentencePieceModel::parse(std::string_view bytes, const std::string& name) {
  SentencePieceModel out;
  std::unordered_set<std::string_view> seen;
  for (MessageReader in(bytes, name); in.next();) {
    if (in.field() == 1) {
      const Piece piece = read_piece(in.bytes(), out.pieces.size(), name);
      if (!seen.insert(piece.text).second) fail("{}: the piece {} occurs twice", name, quote(piece.text));
      if (out.pieces.size() > static_cast<size_t>(kMaxTokenId))
        fail("{}: there are more than {} pieces", name, kMaxTokenId);
      out.pieces.push_back(piece);
    } else if (in.field() == 2) {
      read_trainer(out, in.bytes(), name);
    } else if (in.field() == 3) {
      read_normalizer(out, in.bytes(), name);
    }
  }
  if (out.pieces.empty())
    fail("{}: this is not a SentencePiece model, because it holds no pieces; get the file again.", name);
  return out;
}

std::vector<std::pair<std::string_view, std::string_view>> SentencePieceModel::merges(const std::string& name) const {
  // Hashing both sides of every cut of a piece takes the square of its length. Gemma's 256,000 pieces need a tenth of
  // this.
  constexpr uint64_t kMostWork = uint64_t{1} << 28;
  uint64_t work = 0;
  std::unordered_set<std::string_view> known;
  known.reserve(pieces.size());
  for (const Piece& piece : pieces) {
    known.insert(piece.text);
    const uint64_t size = piece.text.size();
    if (size > kMostWork) fail("{}: its pieces are too long", name);
    work += size * size;
    if (work > kMostWork) fail("{}: its pieces are too long", name);
  }
  std::vector<std::pair<std::string_view, std::string_view>> out;
  for (const Piece& piece : pieces) {
    for (size_t cut = decode_at(piece.text, 0).size; cut < piece.text.size(); cut += decode_at(piece.text, cut).size) {
      const std::string_view left = piece.text.substr(0, cut);
      const std::string_view right = piece.text.substr(cut);
      if (known.contains(left) && known.contains(right)) out.emplace_back(left, right);
    }
  }
  return out;
}

}  // namespace mxlm::text
