#include "io/parquet.hpp"

#include <lz4.h>
#include <snappy-c.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/byte_source.hpp"
#include "io/parquet_metadata.hpp"
#include "io/parquet_values.hpp"

namespace mxlm {
namespace parquet {
namespace {

constexpr size_t kLongestText = size_t{256} << 20;  // as for lines
constexpr uint32_t kMostPage = uint32_t{1} << 30;
constexpr int kDeepestSchema = 64;

using Bytes = std::span<const std::byte>;

// A column of the schema.
struct Column {
  size_t number = 0;        // among the leaves
  uint32_t definition = 0;  // the level of a value that is there
  bool is_text = false;     // exactly one string in a row
};

// Walks the schema and finds a column by its path, joined with dots. Keeps the paths of text columns for a message.
class ColumnFinder {
 public:
  ColumnFinder(const std::vector<SchemaNode>& schema, std::string_view path, const std::string& file)
      : schema_(schema), path_(path), file_(file) {
    if (schema.empty()) fail_damaged(file, "it has no schema");
    const int columns = schema[at_++].children;
    for (int i = 0; i < columns; ++i) visit({}, /*matched=*/0, /*matches=*/true, 0, false, 0);
    if (at_ != schema.size()) fail_damaged(file, "its schema has nodes that belong to none");
  }

  [[nodiscard]] const std::optional<Column>& found() const { return found_; }
  [[nodiscard]] bool is_group() const { return is_group_; }  // the path names a group of several columns
  [[nodiscard]] const std::string& known() const { return known_; }

 private:
  // Visits the node at at_ and the nodes below it. The nodes above used up `matched` bytes of the path, if it
  // `matches`.
  void visit(const std::string& above, size_t matched, bool matches, uint32_t definition, bool repeated, int depth) {
    if (at_ >= schema_.size() || depth > kDeepestSchema)
      fail_damaged(file_, "its schema is not a tree of at most {} levels", kDeepestSchema);
    const SchemaNode& node = schema_[at_++];
    definition += node.repetition != kRequired ? 1 : 0;
    repeated = repeated || node.repetition == kRepeated;
    if (matches && matched > 0) matches = matched < path_.size() && path_[matched++] == '.';
    matches = matches && path_.substr(matched).starts_with(node.name);
    if (matches) matched += node.name.size();
    const bool whole = matches && matched == path_.size();
    // The file decides how long names are.
    std::string name = above;
    if (known_.size() < kLongestKnown && name.size() < kLongestKnown) {
      if (!name.empty()) name += '.';
      name += node.name.substr(0, kLongestKnown);
    }
    if (node.children > 0) {
      if (whole) is_group_ = true;
      for (int i = 0; i < node.children; ++i) visit(name, matched, matches, definition, repeated, depth + 1);
      return;
    }
    const bool is_text = node.is_text && !repeated;
    if (is_text && known_.size() < kLongestKnown) known_ += " " + quote(name);
    if (whole && !found_) found_ = Column{leaf_, definition, is_text};
    ++leaf_;
  }

  static constexpr size_t kLongestKnown = 200;

  const std::vector<SchemaNode>& schema_;
  std::string_view path_;
  const std::string& file_;
  size_t at_ = 0, leaf_ = 0;
  std::optional<Column> found_;
  bool is_group_ = false;
  std::string known_;
};

Column find_text_column(const Footer& footer, const std::string& field, const std::string& file) {
  const ColumnFinder finder(footer.schema(), field, file);
  if (finder.found() && finder.found()->is_text) return *finder.found();
  fail("The Parquet file {} {} {}; name one of its columns of strings with --field:{}.", file,
       finder.found() || finder.is_group() ? "does not hold one string a row in the column" : "has no column",
       quote(field), finder.known().empty() ? " there is none" : finder.known());
}

class SpanSource : public ByteSource {
 public:
  explicit SpanSource(Bytes bytes) : bytes_(bytes) {}
  size_t read(std::span<std::byte> buffer) override {
    const size_t size = std::min(buffer.size(), bytes_.size());
    if (size > 0) std::memcpy(buffer.data(), bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return size;
  }

 private:
  Bytes bytes_;
};

// Decompresses `stored`, which must yield `out.size()` bytes.
void decompress(int codec, Bytes stored, std::span<std::byte> out, const FileView& view, const std::string& file) {
  const auto* in = reinterpret_cast<const char*>(stored.data());
  auto* to = reinterpret_cast<char*>(out.data());
  bool whole = false;
  switch (codec) {
    case kSnappy: {
      size_t size = 0;
      whole = snappy_uncompressed_length(in, stored.size(), &size) == SNAPPY_OK && size == out.size() &&
              snappy_uncompress(in, stored.size(), to, &size) == SNAPPY_OK && size == out.size();
      break;
    }
    case kLz4Raw: {
      const int size = LZ4_decompress_safe(in, to, static_cast<int>(stored.size()), static_cast<int>(out.size()));
      whole = size >= 0 && static_cast<size_t>(size) == out.size();
      break;
    }
    case kGzip:
    case kZstd: {
      auto packed = std::make_unique<SpanSource>(stored);
      const auto source = codec == kGzip ? decompress_gzip(std::move(packed), view.name())
                                         : decompress_zstd(std::move(packed), view.name());
      std::byte more{};
      whole = source->read(out) == out.size() && source->read({&more, 1}) == 0;
      break;
    }
    default:
      fail(
          "The Parquet file {} is compressed by codec {} of the format, which is not supported; write it with another "
          "compression (Snappy, gzip, Zstandard, LZ4_RAW or none).",
          file, codec);
  }
  if (!whole) fail_damaged(file, "a page does not decompress to the {} bytes that it says", out.size());
}

// The rows of a string column of a row group.
class StringColumn {
 public:
  StringColumn(const FileView& view, Bytes pages, const ColumnChunk& chunk, uint32_t definition,
               const std::string& file)
      : view_(view),
        file_(file),
        codec_(chunk.codec),
        pages_(pages.subspan(chunk.offset)),
        left_(chunk.values),
        definition_(definition) {}

  // Returns the next row; nullopt is a null. The bytes are valid until the next call. Call it at most once for each
  // row.
  std::optional<std::string_view> next() {
    while (in_page_ == 0) next_page();
    --in_page_;
    --left_;
    if (levels_) {
      const uint32_t level = levels_->next();
      if (level > definition_) fail_damaged(file_, "a value has the level {} of {}", level, definition_);
      if (level < definition_) return std::nullopt;
    }
    return values_->next();
  }

 private:
  void next_page() {
    throw_if_interrupted();
    const PageHeader page = read_page_header(pages_, file_);
    if (page.stored_size > pages_.size()) fail_damaged(file_, "a page reaches past its data");
    const Bytes stored = pages_.first(page.stored_size);
    pages_ = pages_.subspan(page.stored_size);
    const bool is_data = page.type == kDataPage || page.type == kDataPage2;
    if (!is_data && page.type != kDictionaryPage) return;  // an index
    if (page.size > kMostPage) {
      fail("The Parquet file {} has a page of {} MiB; write it with smaller ones.", file_, page.size >> 20);
    }
    if (page.crc && crc32_z(0, reinterpret_cast<const Bytef*>(stored.data()), stored.size()) != *page.crc) {
      fail_damaged(file_, "the checksum of a page is wrong");
    }
    if (is_data && page.values > left_) fail_damaged(file_, "a column has more values than it says");
    if (page.type == kDictionaryPage) {
      read_dictionary(page, stored);
      return;
    }
    in_page_ = page.values;
    if (page.type == kDataPage) {
      read_page(page, stored);
    } else {
      read_page2(page, stored);
    }
  }

  // The bytes of a page; compressed bytes are decompressed into content_.
  Bytes content(Bytes stored, size_t size, bool compressed) {
    if (codec_ == kUncompressed || !compressed) {
      if (stored.size() != size) fail_damaged(file_, "a page has two sizes");
      return stored;
    }
    if (size > capacity_) {
      content_ = std::make_unique_for_overwrite<std::byte[]>(size);
      capacity_ = size;
    }
    const std::span<std::byte> out(content_.get(), size);
    if (size > 0) decompress(codec_, stored, out, view_, file_);
    return out;
  }

  void read_dictionary(const PageHeader& page, Bytes stored) {
    if (dictionary_) fail_damaged(file_, "a column has two dictionaries");
    if (page.encoding != kPlain && page.encoding != kPlainDictionary) {
      fail_damaged(file_, "its dictionary has the encoding {}", page.encoding);
    }
    const Bytes bytes = content(stored, page.size, true);
    dictionary_.emplace(std::vector<std::byte>(bytes.begin(), bytes.end()), page.values, file_);
  }

  // Levels and values are compressed together; the length of the levels comes first.
  void read_page(const PageHeader& page, Bytes stored) {
    Bytes bytes = content(stored, page.size, true);
    levels_.reset();
    if (definition_ > 0) {
      if (page.level_encoding != kRle) fail_damaged(file_, "its levels have the encoding {}", page.level_encoding);
      const uint32_t size = take_u32(bytes, file_);
      take_levels(bytes, size);
    }
    values_ = decode_strings(page.encoding, bytes, dictionary(), file_);
  }

  // Levels are not compressed.
  void read_page2(const PageHeader& page, Bytes stored) {
    const uint64_t levels = uint64_t{page.repetition_bytes} + page.definition_bytes;
    if (levels > stored.size() || levels > page.size) fail_damaged(file_, "its levels reach past their page");
    Bytes bytes = stored.subspan(page.repetition_bytes);
    levels_.reset();
    if (definition_ > 0) {
      take_levels(bytes, page.definition_bytes);
    } else {
      bytes = bytes.subspan(page.definition_bytes);
    }
    values_ = decode_strings(page.encoding, content(bytes, page.size - levels, page.compressed), dictionary(), file_);
  }

  void take_levels(Bytes& bytes, uint32_t size) {
    if (size > bytes.size()) fail_damaged(file_, "its levels reach past their page");
    unsigned width = 0;
    while (definition_ >> width != 0) ++width;
    levels_.emplace(bytes.first(size), width, file_);
    bytes = bytes.subspan(size);
  }

  [[nodiscard]] const Dictionary* dictionary() const { return dictionary_ ? &*dictionary_ : nullptr; }

  const FileView& view_;
  const std::string& file_;
  int codec_;
  Bytes pages_;
  uint64_t left_;  // values of the column
  uint32_t definition_;
  uint64_t in_page_ = 0;
  std::unique_ptr<std::byte[]> content_;
  size_t capacity_ = 0;
  std::optional<Dictionary> dictionary_;
  std::optional<HybridIntegers> levels_;
  std::unique_ptr<StringValues> values_;
};

void read_rows(const FileView& view, const std::string& field,
               const std::function<bool(std::string_view, std::string_view)>& take) {
  const std::string file = quote(view.name());
  Footer footer(view);
  const Column text_column = find_text_column(footer, field, file);
  const auto subset_column = ColumnFinder(footer.schema(), "meta.pile_set_name", file).found();
  const bool has_subset = subset_column && subset_column->is_text && subset_column->number != text_column.number;
  std::vector<size_t> columns{text_column.number};
  if (has_subset) columns.push_back(subset_column->number);

  uint64_t number = 0;
  while (const auto group = footer.next_group(columns)) {
    StringColumn texts(view, footer.pages(), group->chunks[0], text_column.definition, file);
    std::optional<StringColumn> subsets;
    if (has_subset) subsets.emplace(view, footer.pages(), group->chunks[1], subset_column->definition, file);
    for (uint64_t row = 0; row < group->rows; ++row) {
      ++number;
      const auto text = texts.next();
      const auto subset = subsets ? subsets->next() : std::nullopt;
      if (!text) {
        fail("The Parquet file {} has no value in the column {} of row {}; leave such rows out.", file, quote(field),
             number);
      }
      if (text->size() > kLongestText) {
        fail("The Parquet file {} has more than {} MiB in row {}; cut it into documents.", file, kLongestText >> 20,
             number);
      }
      if (!take(*text, subset.value_or(std::string_view()))) return;
    }
    for (const ColumnChunk& chunk : group->chunks) view.release(chunk.offset, chunk.size);
  }
}

}  // namespace
}  // namespace parquet

void read_parquet(const FileView& file, const std::string& field,
                  const std::function<bool(std::string_view, std::string_view)>& take) {
  parquet::read_rows(file, field, take);
}

void read_parquet(const std::string& path, const std::string& field,
                  const std::function<bool(std::string_view, std::string_view)>& take) {
  const FileView file = FileView::map(path);
  file.watch();
  read_parquet(file, field, take);
  FileView::throw_if_changed();
}

bool parquet_has_strings(const std::string& path, const std::string& field) {
  const FileView file = FileView::map(path);
  const std::string name = quote(path);
  const parquet::Footer footer(file);
  const auto column = parquet::ColumnFinder(footer.schema(), field, name).found();
  return column && column->is_text;
}

}  // namespace mxlm
