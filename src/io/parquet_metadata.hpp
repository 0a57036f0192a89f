#pragma once

// The footer, the schema and the page headers of Parquet files.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "io/file.hpp"

/// The metadata of Parquet files, as parquet.thrift of Apache Parquet's format 2.11 defines it, in Thrift's compact
/// protocol. Unneeded fields are skipped, memory for a list never follows from its claimed length, and nesting has a
/// fixed limit.
namespace mxlm::parquet {

/// Throws Error: the file (with a quoted name) is damaged or uses something unknown to this reader.
template <typename... Args>
[[noreturn]] void fail_damaged(const std::string& file, fmt::format_string<Args...> text, Args&&... args) {
  fail("The Parquet file {} could not be read: {}; get the file again.", file,
       fmt::format(text, std::forward<Args>(args)...));
}

// The values of parquet.thrift's enumerations that matter here.
constexpr int kByteArray = 6;                                                     // Type
constexpr int kRequired = 0, kOptional = 1, kRepeated = 2;                        // FieldRepetitionType
constexpr int kUncompressed = 0, kSnappy = 1, kGzip = 2, kZstd = 6, kLz4Raw = 7;  // CompressionCodec
constexpr int kDataPage = 0, kDictionaryPage = 2, kDataPage2 = 3;                 // PageType
constexpr int kPlain = 0, kPlainDictionary = 2, kRle = 3, kDeltaLengthByteArray = 6, kDeltaByteArray = 7,
              kRleDictionary = 8;  // Encoding

/// A node of the schema. The nodes are in depth-first order.
struct SchemaNode {
  std::string_view name;  // in the file's bytes
  int children = 0;       // 0: a leaf, which is a column
  int repetition = kRequired;
  bool is_text = false;  // a byte array that is declared as text (string, JSON, enum), or not declared at all
};

/// The values of a column in one row group.
struct ColumnChunk {
  int codec = kUncompressed;
  uint64_t values = 0;            // with nulls
  uint64_t offset = 0, size = 0;  // bytes of its pages in the file
};

struct RowGroup {
  uint64_t rows = 0;
  std::vector<ColumnChunk> chunks;  // of the wanted columns, in their order
};

struct PageHeader {
  int type = kDataPage;
  uint32_t size = 0, stored_size = 0;  // bytes of the page without its header, decompressed and in the file
  std::optional<uint32_t> crc;         // of the bytes in the file
  uint32_t values = 0;                 // of a dictionary: its entries
  int encoding = kPlain;
  int level_encoding = kRle;                            // of definition levels in a data page v1
  uint32_t definition_bytes = 0, repetition_bytes = 0;  // of levels in a data page v2
  bool compressed = true;                               // the values of a data page v2
};

/// The footer of a Parquet file.
class Footer {
 public:
  /// Finds and checks the footer and reads its schema. Throws Error.
  explicit Footer(const FileView& file);

  [[nodiscard]] const std::vector<SchemaNode>& schema() const { return schema_; }
  /// The bytes before the footer, in which all pages lie.
  [[nodiscard]] std::span<const std::byte> pages() const { return pages_; }
  /// Returns the next row group, with the columns of these numbers (indices of leaves, in any order); nullopt after the
  /// last row group. Throws Error for chunks outside pages(), of another type, encrypted, or in another file.
  std::optional<RowGroup> next_group(const std::vector<size_t>& columns);

 private:
  std::string file_;  // quoted
  std::span<const std::byte> pages_, footer_;
  std::vector<SchemaNode> schema_;
  size_t group_offset_ = 0;  // of the next row group in the footer
  uint64_t groups_left_ = 0;
};

/// Reads the header of a page and removes it from the front of `bytes`. Throws Error.
PageHeader read_page_header(std::span<const std::byte>& bytes, const std::string& file);

/// Removes an unsigned variable-length integer (ULEB128, at most 64 bits) from the front of `bytes`. Throws Error.
uint64_t take_varint(std::span<const std::byte>& bytes, const std::string& file);

/// The signed number of a zigzag code.
constexpr int64_t from_zigzag(uint64_t code) {
  return static_cast<int64_t>(code >> 1) ^ -static_cast<int64_t>(code & 1);
}

/// Removes a little-endian number of 32 bits from the front of `bytes`. Throws Error.
uint32_t take_u32(std::span<const std::byte>& bytes, const std::string& file);

}  // namespace mxlm::parquet
