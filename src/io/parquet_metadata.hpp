#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "io/file.hpp"

/// The metadata of Parquet files as parquet.thrift of Apache Parquet's format 2.11 defines it, in Thrift's compact
/// protocol. A field that is not needed here is skipped, a list is never allocated from its claimed length, and structs
/// are followed to a fixed depth.
namespace mxlm::parquet {

/// Throws Error: the file (its name quoted) is damaged or uses what this reader does not know.
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

/// A node of the schema; the nodes are in depth-first order.
struct SchemaNode {
  std::string_view name;  // in the file's bytes
  int children = 0;       // 0: a leaf, which is a column
  int repetition = kRequired;
  bool is_text = false;  // a byte array that is declared as text (string, JSON, enum), or as nothing else
};

/// A column's values in one row group.
struct ColumnChunk {
  int codec = kUncompressed;
  uint64_t values = 0;            // with nulls
  uint64_t offset = 0, size = 0;  // bytes of its pages in the file
};

struct RowGroup {
  uint64_t rows = 0;
  std::vector<ColumnChunk> chunks;  // of the columns asked for, in that order
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
  /// The next row group, of which the columns with these numbers are wanted (leaves are counted, ascending or not);
  /// nullopt after the last. Throws Error for chunks outside of pages(), of another type, encrypted or in another file.
  std::optional<RowGroup> next_group(const std::vector<size_t>& columns);

 private:
  std::string file_;  // quoted
  std::span<const std::byte> pages_, footer_;
  std::vector<SchemaNode> schema_;
  size_t group_offset_ = 0;  // of the next row group in the footer
  uint64_t groups_left_ = 0;
};

/// Reads a page's header from the front of `bytes` and takes it away from them. Throws Error.
PageHeader read_page_header(std::span<const std::byte>& bytes, const std::string& file);

/// Takes an unsigned variable-length integer (ULEB128, at most 64 bits) away from the front of `bytes`. Throws Error.
uint64_t take_varint(std::span<const std::byte>& bytes, const std::string& file);

/// The signed number that a zigzag code stands for.
constexpr int64_t from_zigzag(uint64_t code) {
  return static_cast<int64_t>(code >> 1) ^ -static_cast<int64_t>(code & 1);
}

/// Takes a little-endian number of 32 bits away from the front of `bytes`. Throws Error.
uint32_t take_u32(std::span<const std::byte>& bytes, const std::string& file);

}  // namespace mxlm::parquet
