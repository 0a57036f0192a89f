#include "io/parquet_metadata.hpp"

#include <algorithm>
#include <limits>

#include "base/quote.hpp"

namespace mxlm::parquet {
namespace {

constexpr std::string_view kMagic = "PAR1", kEncryptedMagic = "PARE";
constexpr size_t kTailSize = 8;  // the footer's length and the magic number
constexpr size_t kMostNodes = size_t{1} << 20;

// Thrift's compact protocol, as thrift-compact-protocol.md describes it.
class CompactReader {
 public:
  enum Type : uint8_t {
    stop = 0,
    yes = 1,
    no = 2,
    i8 = 3,
    i16 = 4,
    i32 = 5,
    i64 = 6,
    floating = 7,
    binary = 8,
    list = 9,
    set = 10,
    map = 11,
    structure = 12,
  };

  CompactReader(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  [[nodiscard]] std::span<const std::byte> rest() const { return bytes_; }

  // Calls take(id, type) for each field of a struct; a field for which it returns false is skipped.
  template <typename Take>
  void read_struct(Take take) {
    int64_t id = 0;
    for (;;) {
      const uint8_t head = byte();
      const auto type = static_cast<Type>(head & 0x0f);
      if (type == stop) return;
      const int delta = head >> 4;
      id = delta != 0 ? id + delta : static_cast<int16_t>(from_zigzag(take_varint(bytes_, file_)));
      if (!take(id, type)) skip(type, 0);
    }
  }

  // Calls take() for each element of a list of structs.
  template <typename Take>
  void read_structs(Type type, Take take) {
    const auto [element, count] = list_head(type);
    if (count > 0) expect(element, structure);
    for (uint64_t i = 0; i < count; ++i) take();
  }

  // The length of a list of structs; its first element comes next.
  uint64_t count_structs(Type type) {
    const auto [element, count] = list_head(type);
    if (count > 0) expect(element, structure);
    return count;
  }

  int64_t integer(Type type) {
    if (type == i8) return static_cast<int8_t>(byte());
    if (type != i16 && type != i32 && type != i64) fail_type();
    return from_zigzag(take_varint(bytes_, file_));
  }
  // A number that is at most `most`.
  uint64_t size(Type type, uint64_t most) {
    const int64_t value = integer(type);
    if (value < 0 || static_cast<uint64_t>(value) > most) fail_damaged(file_, "its metadata has the size {}", value);
    return static_cast<uint64_t>(value);
  }
  int enumeration(Type type) { return static_cast<int>(size(type, std::numeric_limits<int>::max())); }
  bool boolean(Type type) {
    if (type != yes && type != no) fail_type();
    return type == yes;
  }
  std::string_view string(Type type) {
    expect(type, binary);
    const auto bytes = take(take_varint(bytes_, file_));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  void expect(Type type, Type expected) const {
    if (type != expected) fail_type();
  }

 private:
  [[noreturn]] void fail_type() const {
    fail_damaged(file_, "a field of its metadata has another type than it should");
  }

  std::span<const std::byte> take(uint64_t size) {
    if (size > bytes_.size()) fail_damaged(file_, "its metadata is cut off");
    const auto taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  uint8_t byte() { return std::to_integer<uint8_t>(take(1)[0]); }

  std::pair<Type, uint64_t> list_head(Type type) {
    if (type != list && type != set) fail_type();
    const uint8_t head = byte();
    uint64_t count = head >> 4;
    if (count == 15) count = take_varint(bytes_, file_);
    check_count(count);
    return {static_cast<Type>(head & 0x0f), count};
  }
  // Each element takes at least a byte.
  void check_count(uint64_t count) const {
    if (count > bytes_.size()) fail_damaged(file_, "its metadata claims {} elements of a list", count);
  }

  void skip(Type type, int depth) {
    constexpr int kDeepest = 32;
    if (depth > kDeepest) fail_damaged(file_, "its metadata is nested more than {} deep", kDeepest);
    switch (type) {
      case yes:
      case no:
        // The type of the field is its value.
        return;
      case i8:
        take(1);
        return;
      case i16:
      case i32:
      case i64:
        take_varint(bytes_, file_);
        return;
      case floating:
        take(8);
        return;
      case binary:
        take(take_varint(bytes_, file_));
        return;
      case list:
      case set: {
        const auto [element, count] = list_head(type);
        for (uint64_t i = 0; i < count; ++i) skip_element(element, depth + 1);
        return;
      }
      case map: {
        const uint64_t count = take_varint(bytes_, file_);
        if (count == 0) return;
        check_count(count);
        const uint8_t types = byte();
        for (uint64_t i = 0; i < count; ++i) {
          skip_element(static_cast<Type>(types >> 4), depth + 1);
          skip_element(static_cast<Type>(types & 0x0f), depth + 1);
        }
        return;
      }
      case structure:
        for (;;) {
          const uint8_t head = byte();
          const auto field = static_cast<Type>(head & 0x0f);
          if (field == stop) return;
          if (head >> 4 == 0) take_varint(bytes_, file_);
          skip(field, depth + 1);
        }
      case stop:
        break;
    }
    fail_damaged(file_, "its metadata has a field of an unknown type");
  }
  // A boolean outside a field takes a byte.
  void skip_element(Type type, int depth) { skip(type == yes || type == no ? i8 : type, depth); }

  std::span<const std::byte> bytes_;
  const std::string& file_;
};

using Type = CompactReader::Type;

// Converted types and the fields of the union LogicalType that mean text.
bool is_text_type(int64_t converted) { return converted == 0 || converted == 4 || converted == 19; }
bool is_text_logical(int64_t field) { return field == 1 || field == 4 || field == 12; }

SchemaNode read_node(CompactReader& in) {
  SchemaNode node;
  std::optional<int64_t> physical, converted, logical;
  in.read_struct([&](int64_t id, Type type) {
    switch (id) {
      case 1:
        physical = in.integer(type);
        return true;
      case 3:
        node.repetition = in.enumeration(type);
        return true;
      case 4:
        node.name = in.string(type);
        return true;
      case 5:
        node.children = in.enumeration(type);
        return true;
      case 6:
        converted = in.integer(type);
        return true;
      case 10:
        in.expect(type, Type::structure);
        in.read_struct([&](int64_t field, Type /*type*/) {
          logical = field;
          return false;
        });
        return true;
      default:
        return false;
    }
  });
  // The logical type replaces the older converted type.
  const bool text = logical ? is_text_logical(*logical) : !converted || is_text_type(*converted);
  node.is_text = node.children == 0 && physical == kByteArray && text;
  return node;
}

ColumnChunk read_chunk(CompactReader& in, const std::string& file, uint64_t pages_size) {
  ColumnChunk chunk;
  bool has_metadata = false, elsewhere = false, encrypted = false;
  int64_t physical = -1;
  uint64_t dictionary = 0;
  in.read_struct([&](int64_t id, Type type) {
    if (id == 1) elsewhere = !in.string(type).empty();
    if (id == 8 || id == 9) encrypted = true;
    if (id != 3) return id == 1;
    in.expect(type, Type::structure);
    has_metadata = true;
    in.read_struct([&](int64_t field, Type field_type) {
      switch (field) {
        case 1:
          physical = in.integer(field_type);
          return true;
        case 4:
          chunk.codec = in.enumeration(field_type);
          return true;
        case 5:
          chunk.values = in.size(field_type, INT64_MAX);
          return true;
        case 7:
          chunk.size = in.size(field_type, pages_size);
          return true;
        case 9:
          chunk.offset = in.size(field_type, pages_size);
          return true;
        case 11:
          dictionary = in.size(field_type, pages_size);
          return true;
        default:
          return false;
      }
    });
    return true;
  });
  if (encrypted) fail("The Parquet file {} is encrypted, which is not supported; decrypt it.", file);
  if (elsewhere) fail("The Parquet file {} keeps its data in another file, which is not supported.", file);
  if (!has_metadata || physical != kByteArray) {
    fail_damaged(file, "a column has another type than the schema says");
  }
  // Some writers say 0 if there is no dictionary.
  if (dictionary != 0) chunk.offset = std::min(chunk.offset, dictionary);
  if (chunk.size > pages_size - chunk.offset) fail_damaged(file, "a column reaches past its data");
  return chunk;
}

RowGroup read_group(CompactReader& in, const std::vector<size_t>& columns, const std::string& file,
                    uint64_t pages_size) {
  RowGroup group;
  group.chunks.resize(columns.size());
  size_t found = 0;
  in.read_struct([&](int64_t id, Type type) {
    if (id == 3) {
      group.rows = in.size(type, INT64_MAX);
      return true;
    }
    if (id != 1) return false;
    size_t number = 0;
    in.read_structs(type, [&] {
      const auto wanted = std::find(columns.begin(), columns.end(), number++);
      if (wanted == columns.end()) {
        in.read_struct([](int64_t /*id*/, Type /*type*/) { return false; });
        return;
      }
      group.chunks[static_cast<size_t>(wanted - columns.begin())] = read_chunk(in, file, pages_size);
      ++found;
    });
    return true;
  });
  if (found != columns.size()) fail_damaged(file, "a row group lacks columns of the schema");
  for (const ColumnChunk& chunk : group.chunks) {
    if (chunk.values != group.rows) {
      fail_damaged(file, "a column has {} values in a row group of {} rows", chunk.values, group.rows);
    }
  }
  return group;
}

}  // namespace

uint64_t take_varint(std::span<const std::byte>& bytes, const std::string& file) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (bytes.empty()) fail_damaged(file, "a number in it is cut off");
    const auto next = std::to_integer<uint64_t>(bytes[0]);
    bytes = bytes.subspan(1);
    value |= (next & 0x7f) << shift;
    if ((next & 0x80) == 0) return value;
  }
  fail_damaged(file, "a number in it has more than 64 bits");
}

uint32_t take_u32(std::span<const std::byte>& bytes, const std::string& file) {
  if (bytes.size() < 4) fail_damaged(file, "a number in it is cut off");
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= std::to_integer<uint32_t>(bytes[i]) << (8 * i);
  bytes = bytes.subspan(4);
  return value;
}

Footer::Footer(const FileView& file) : file_(quote(file.name())) {
  const auto all = file.bytes();
  const std::string_view text = file.text();
  if (text.ends_with(kEncryptedMagic)) {
    fail("The Parquet file {} is encrypted, which is not supported; decrypt it.", file_);
  }
  if (text.size() < kMagic.size() + kTailSize || !text.starts_with(kMagic) || !text.ends_with(kMagic)) {
    fail_damaged(file_, "it does not begin and end as a Parquet file does");
  }
  auto tail = all.last(kTailSize);
  const uint32_t size = take_u32(tail, file_);
  if (size > all.size() - kMagic.size() - kTailSize) fail_damaged(file_, "its footer is larger than the file");
  footer_ = all.subspan(all.size() - kTailSize - size, size);
  pages_ = all.first(all.size() - kTailSize - size);

  CompactReader in(footer_, file_);
  in.read_struct([&](int64_t id, Type type) {
    if (id == 2) {
      in.read_structs(type, [&] {
        if (schema_.size() == kMostNodes) fail_damaged(file_, "its schema has more than {} nodes", kMostNodes);
        schema_.push_back(read_node(in));
      });
      return true;
    }
    if (id != 4) return false;
    // Skips row groups here; they are read on request.
    groups_left_ = in.count_structs(type);
    group_offset_ = footer_.size() - in.rest().size();
    for (uint64_t i = 0; i < groups_left_; ++i) {
      in.read_struct([](int64_t /*id*/, Type /*type*/) { return false; });
    }
    return true;
  });
}

std::optional<RowGroup> Footer::next_group(const std::vector<size_t>& columns) {
  if (groups_left_ == 0) return std::nullopt;
  --groups_left_;
  CompactReader in(footer_.subspan(group_offset_), file_);
  RowGroup group = read_group(in, columns, file_, pages_.size());
  group_offset_ = footer_.size() - in.rest().size();
  return group;
}

PageHeader read_page_header(std::span<const std::byte>& bytes, const std::string& file) {
  PageHeader page;
  CompactReader in(bytes, file);
  constexpr uint64_t kMost = INT32_MAX;
  const auto number = [&in](Type type) { return static_cast<uint32_t>(in.size(type, kMost)); };
  // The three kinds of pages have different structs, with different field numbers for the same things.
  const auto read_kind = [&](Type type, int64_t encoding, int64_t levels) {
    in.expect(type, Type::structure);
    in.read_struct([&](int64_t id, Type field) {
      if (id == 1) {
        page.values = number(field);
      } else if (id == encoding) {
        page.encoding = in.enumeration(field);
      } else if (id == levels) {
        page.level_encoding = in.enumeration(field);
      } else {
        return false;
      }
      return true;
    });
    return true;
  };
  constexpr int64_t kNone = -1;
  in.read_struct([&](int64_t id, Type type) {
    switch (id) {
      case 1:
        page.type = in.enumeration(type);
        return true;
      case 2:
        page.size = number(type);
        return true;
      case 3:
        page.stored_size = number(type);
        return true;
      case 4:
        page.crc = static_cast<uint32_t>(in.integer(type));
        return true;
      case 5:
        return read_kind(type, 2, 3);
      case 7:
        return read_kind(type, 2, kNone);
      case 8:
        in.expect(type, Type::structure);
        in.read_struct([&](int64_t field, Type field_type) {
          switch (field) {
            case 1:
              page.values = number(field_type);
              return true;
            case 4:
              page.encoding = in.enumeration(field_type);
              return true;
            case 5:
              page.definition_bytes = number(field_type);
              return true;
            case 6:
              page.repetition_bytes = number(field_type);
              return true;
            case 7:
              page.compressed = in.boolean(field_type);
              return true;
            default:
              return false;
          }
        });
        return true;
      default:
        return false;
    }
  });
  bytes = in.rest();
  return page;
}

}  // namespace mxlm::parquet
