#include "parquet/rows.hpp"

#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <parquet/column_reader.h>
#include <parquet/file_reader.h>
#include <parquet/schema.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

namespace mxlm::parquet_reader {
namespace {

constexpr int64_t kMostMemory = int64_t{1} << 30;

[[noreturn]] void refuse(const std::string& what) { throw Refusal(what); }

// The rows of one string column of a row group.
class StringColumn {
 public:
  StringColumn(parquet::RowGroupReader& group, int column) : reader_(group.Column(column)) {
    strings_ = dynamic_cast<parquet::ByteArrayReader*>(reader_.get());
    if (strings_ == nullptr) refuse("is damaged: a column has another type than its schema says");
    present_ = reader_->descr()->max_definition_level();
  }

  // The next row (nullopt is a null); false at the end. The bytes are valid until the next call.
  bool next(std::optional<std::string_view>& row) {
    if (level_ == levels_ && !refill()) return false;
    row.reset();
    if (present_ == 0 || definitions_[level_] == present_) {
      const auto& value = values_[value_++];
      row = std::string_view(reinterpret_cast<const char*>(value.ptr), value.len);
    }
    ++level_;
    return true;
  }

 private:
  bool refill() {
    if (!reader_->HasNext()) return false;
    int64_t read = 0;
    const int64_t levels =
        strings_->ReadBatch(static_cast<int64_t>(values_.size()), definitions_.data(), nullptr, values_.data(), &read);
    if (levels <= 0) refuse("is damaged: a page has fewer rows than it says");
    const auto present =
        present_ == 0 ? levels : std::count(definitions_.begin(), definitions_.begin() + levels, present_);
    if (read != present) refuse("is damaged: a page has fewer values than it says");
    levels_ = static_cast<size_t>(levels);
    level_ = value_ = 0;
    return true;
  }

  std::shared_ptr<parquet::ColumnReader> reader_;
  parquet::ByteArrayReader* strings_ = nullptr;
  int16_t present_ = 0;
  std::array<int16_t, 256> definitions_{};
  std::array<parquet::ByteArray, 256> values_{};
  size_t levels_ = 0, level_ = 0, value_ = 0;
};

// True for a column of one string a row. Without a logical type it holds bytes, which may be text.
bool holds_strings(const parquet::ColumnDescriptor& column) {
  const auto& logical = column.logical_type();
  const bool text =
      logical == nullptr || logical->is_none() || logical->is_string() || logical->is_JSON() || logical->is_enum();
  return column.physical_type() == parquet::Type::BYTE_ARRAY && column.max_repetition_level() == 0 && text;
}

int find_column(const parquet::SchemaDescriptor& schema, const std::string& name) {
  for (int i = 0; i < schema.num_columns(); ++i) {
    if (schema.Column(i)->path()->ToDotString() == name) return i;
  }
  return -1;
}

int find_text_column(const parquet::SchemaDescriptor& schema, const std::string& field) {
  const int column = find_column(schema, field);
  if (column >= 0 && holds_strings(*schema.Column(column))) return column;
  std::string known;
  for (int i = 0; i < schema.num_columns() && known.size() < 200; ++i) {
    if (holds_strings(*schema.Column(i)))
      known.append(" '").append(schema.Column(i)->path()->ToDotString()).append("'");
  }
  refuse((column < 0 ? "has no column '" : "does not hold one string a row in the column '") + field +
         "'; name one of its columns of strings with --field:" + (known.empty() ? " there is none" : known));
}

}  // namespace

void read_rows(std::span<const std::byte> file, const std::string& field,
               const std::function<bool(std::string_view, std::string_view)>& take) try {
  arrow::CappedMemoryPool pool(arrow::default_memory_pool(), kMostMemory);
  parquet::ReaderProperties properties(&pool);
  properties.set_page_checksum_verification(true);
  const auto buffer =
      std::make_shared<arrow::Buffer>(reinterpret_cast<const uint8_t*>(file.data()), static_cast<int64_t>(file.size()));
  const auto reader = parquet::ParquetFileReader::Open(std::make_shared<arrow::io::BufferReader>(buffer), properties);
  const auto metadata = reader->metadata();
  const auto& schema = *metadata->schema();
  const int text_column = find_text_column(schema, field);
  int subset_column = find_column(schema, "meta.pile_set_name");
  if (subset_column >= 0 && !holds_strings(*schema.Column(subset_column))) subset_column = -1;

  int64_t number = 0;
  for (int g = 0; g < metadata->num_row_groups(); ++g) {
    const auto group = reader->RowGroup(g);
    StringColumn texts(*group, text_column);
    std::optional<StringColumn> subsets;
    if (subset_column >= 0) subsets.emplace(*group, subset_column);
    std::optional<std::string_view> text, subset;
    const int64_t rows = group->metadata()->num_rows();
    const std::string no_value = "has no value in the column '" + field + "' of ";
    for (int64_t i = 0; i < rows; ++i) {
      const std::string row = "row " + std::to_string(++number);
      if (!texts.next(text) || (subsets && !subsets->next(subset))) {
        refuse("is damaged: a column ends in " + row + " before its row group does; get the file again");
      }
      if (!text) refuse(no_value + row + "; leave such rows out");
      if (text->size() > kLongestText) refuse("has more than 256 MiB in " + row + "; cut it into documents");
      if (!take(*text, subset.value_or(std::string_view()))) return;
    }
  }
} catch (const Refusal&) {
  throw;
} catch (const std::exception& error) {  // Arrow's
  refuse(std::string("could not be read (") + error.what() + "); get the file again");
}

}  // namespace mxlm::parquet_reader
