#include "io/parquet_values.hpp"

#include <algorithm>
#include <utility>

#include "io/parquet_metadata.hpp"

namespace mxlm::parquet {
namespace {

constexpr size_t kLongestString = size_t{256} << 20;  // as for lines

// The `width` bits from bit `at` on, lowest bit first. The caller has checked the bounds.
uint64_t bits(std::span<const std::byte> bytes, uint64_t at, unsigned width) {
  uint64_t value = 0;
  for (unsigned got = 0; got < width;) {
    const auto shift = static_cast<unsigned>(at & 7);
    const unsigned more = std::min(8 - shift, width - got);
    const uint64_t part = (std::to_integer<uint64_t>(bytes[at >> 3]) >> shift) & ((uint64_t{1} << more) - 1);
    value |= part << got;
    got += more;
    at += more;
  }
  return value;
}

[[noreturn]] void fail_short(const std::string& file) { fail_damaged(file, "a page has fewer values than it says"); }

std::string_view take_string(std::span<const std::byte>& bytes, uint64_t size, const std::string& file) {
  if (size > bytes.size()) fail_damaged(file, "a string reaches past its page");
  const std::string_view taken{reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(size)};
  bytes = bytes.subspan(size);
  return taken;
}

class PlainStrings : public StringValues {
 public:
  PlainStrings(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}
  std::string_view next() override {
    if (bytes_.empty()) fail_short(file_);
    const uint32_t size = take_u32(bytes_, file_);
    return take_string(bytes_, size, file_);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
};

class DictionaryStrings : public StringValues {
 public:
  DictionaryStrings(std::span<const std::byte> bytes, const Dictionary& dictionary, const std::string& file)
      : dictionary_(dictionary), file_(file), indices_(bytes.subspan(1), width_of(bytes, file), file) {}
  std::string_view next() override { return dictionary_.at(indices_.next(), file_); }

 private:
  static unsigned width_of(std::span<const std::byte> bytes, const std::string& file) {
    const auto width = std::to_integer<unsigned>(bytes[0]);
    if (width > 32) fail_damaged(file, "its dictionary's indices have {} bits", width);
    return width;
  }

  const Dictionary& dictionary_;
  const std::string& file_;
  HybridIntegers indices_;
};

class DeltaLengthStrings : public StringValues {
 public:
  DeltaLengthStrings(std::span<const std::byte> bytes, const std::string& file)
      : file_(file), lengths_(bytes, file), bytes_(lengths_.after()) {}
  std::string_view next() override {
    const uint32_t size = lengths_.next();
    return take_string(bytes_, size, file_);
  }

 private:
  const std::string& file_;
  DeltaIntegers lengths_;
  std::span<const std::byte> bytes_;
};

// Each string begins with some bytes of the string before it.
class DeltaStrings : public StringValues {
 public:
  DeltaStrings(std::span<const std::byte> bytes, const std::string& file)
      : file_(file), prefixes_(bytes, file), suffixes_(prefixes_.after(), file) {}
  std::string_view next() override {
    const uint32_t prefix = prefixes_.next();
    if (prefix > text_.size()) fail_damaged(file_, "a string shares {} bytes with one of {}", prefix, text_.size());
    text_.resize(prefix);
    text_ += suffixes_.next();
    if (text_.size() > kLongestString) fail_damaged(file_, "a string has more than {} MiB", kLongestString >> 20);
    return text_;
  }

 private:
  const std::string& file_;
  DeltaIntegers prefixes_;
  DeltaLengthStrings suffixes_;
  std::string text_;
};

// A page that holds only nulls.
class NoStrings : public StringValues {
 public:
  explicit NoStrings(const std::string& file) : file_(file) {}
  std::string_view next() override { fail_short(file_); }

 private:
  const std::string& file_;
};

}  // namespace

uint32_t HybridIntegers::next() {
  while (left_ == 0) next_run();
  --left_;
  if (!is_packed_) return value_;
  const auto value = static_cast<uint32_t>(bits(packed_, bit_, width_));
  bit_ += width_;
  return value;
}

void HybridIntegers::next_run() {
  if (bytes_.empty()) fail_short(file_);
  const uint64_t head = take_varint(bytes_, file_);
  is_packed_ = (head & 1) != 0;
  left_ = head >> 1;
  if (left_ > UINT32_MAX) fail_damaged(file_, "a run has {} values", left_);
  if (!is_packed_) {
    const size_t size = (width_ + 7) / 8;
    if (size > bytes_.size()) fail_short(file_);
    value_ = static_cast<uint32_t>(bits(bytes_, 0, static_cast<unsigned>(8 * size)));
    bytes_ = bytes_.subspan(size);
    return;
  }
  // Groups of eight; a writer may omit the padding of the last group.
  const auto size = static_cast<size_t>(std::min<uint64_t>(left_ * width_, bytes_.size()));
  left_ *= 8;
  if (width_ > 0) left_ = std::min<uint64_t>(left_, uint64_t{size} * 8 / width_);
  packed_ = bytes_.first(size);
  bytes_ = bytes_.subspan(size);
  bit_ = 0;
}

DeltaIntegers::DeltaIntegers(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {
  const uint64_t block_size = take_varint(bytes_, file_);
  miniblocks_ = take_varint(bytes_, file_);
  left_ = take_varint(bytes_, file_);
  value_ = static_cast<uint64_t>(from_zigzag(take_varint(bytes_, file_)));
  constexpr uint64_t kMost = INT32_MAX;
  const bool valid = block_size > 0 && block_size <= kMost && miniblocks_ > 0 && miniblocks_ <= block_size &&
                     block_size % miniblocks_ == 0 && block_size / miniblocks_ % 32 == 0;
  if (!valid) fail_damaged(file_, "it has blocks of {} values in {} parts", block_size, miniblocks_);
  miniblock_size_ = block_size / miniblocks_;
}

uint32_t DeltaIntegers::next() {
  if (left_ == 0) fail_short(file_);
  --left_;
  if (!first_) {
    if (deltas_ == 0) next_miniblock();
    --deltas_;
    value_ += least_delta_ + bits(packed_, bit_, width_);
    bit_ += width_;
  }
  first_ = false;
  // Writers let the sum overflow, too.
  const auto length = static_cast<uint32_t>(value_);
  if (length > INT32_MAX) fail_damaged(file_, "a string has a negative length");
  return length;
}

void DeltaIntegers::next_block() {
  least_delta_ = static_cast<uint64_t>(from_zigzag(take_varint(bytes_, file_)));
  if (miniblocks_ > bytes_.size()) fail_short(file_);
  widths_ = bytes_.first(miniblocks_);
  bytes_ = bytes_.subspan(miniblocks_);
}

void DeltaIntegers::next_miniblock() {
  if (widths_.empty()) next_block();
  width_ = std::to_integer<unsigned>(widths_[0]);
  widths_ = widths_.subspan(1);
  if (width_ > 64) fail_damaged(file_, "a number in it has {} bits", width_);
  const uint64_t size = miniblock_size_ / 8 * width_;
  if (size > bytes_.size()) fail_short(file_);
  packed_ = bytes_.first(size);
  bytes_ = bytes_.subspan(size);
  bit_ = 0;
  deltas_ = miniblock_size_;
}

std::span<const std::byte> DeltaIntegers::after() const {
  DeltaIntegers walker = *this;
  for (uint64_t deltas = left_ > 0 ? left_ - 1 : 0; deltas > 0; deltas -= std::min(deltas, miniblock_size_)) {
    walker.next_miniblock();
  }
  return walker.bytes_;
}

Dictionary::Dictionary(std::vector<std::byte> bytes, uint32_t values, const std::string& file)
    : bytes_(std::move(bytes)) {
  std::span<const std::byte> rest = bytes_;
  // Each string takes at least four bytes, so a wrong count cannot ask for memory.
  if (values > rest.size() / 4) fail_short(file);
  offsets_.reserve(values);
  for (uint32_t i = 0; i < values; ++i) {
    offsets_.push_back(static_cast<uint32_t>(bytes_.size() - rest.size()));
    const uint32_t size = take_u32(rest, file);
    take_string(rest, size, file);
  }
}

std::string_view Dictionary::at(uint32_t index, const std::string& file) const {
  if (index >= offsets_.size()) fail_damaged(file, "its dictionary has no entry {}", index);
  auto rest = std::span<const std::byte>(bytes_).subspan(offsets_[index]);
  const uint32_t size = take_u32(rest, file);
  return take_string(rest, size, file);
}

std::unique_ptr<StringValues> decode_strings(int encoding, std::span<const std::byte> bytes,
                                             const Dictionary* dictionary, const std::string& file) {
  if (bytes.empty()) return std::make_unique<NoStrings>(file);
  switch (encoding) {
    case kPlain:
      return std::make_unique<PlainStrings>(bytes, file);
    case kPlainDictionary:
    case kRleDictionary:
      if (dictionary == nullptr) fail_damaged(file, "a page refers to a dictionary that is not there");
      return std::make_unique<DictionaryStrings>(bytes, *dictionary, file);
    case kDeltaLengthByteArray:
      return std::make_unique<DeltaLengthStrings>(bytes, file);
    case kDeltaByteArray:
      return std::make_unique<DeltaStrings>(bytes, file);
    default:
      fail_damaged(file, "a page has the encoding {}, which is not known for strings", encoding);
  }
}

}  // namespace mxlm::parquet
