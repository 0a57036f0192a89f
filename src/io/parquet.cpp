#include "io/parquet.hpp"

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"

#ifdef MXLM_HAVE_ARROW

// The only place that includes Arrow's headers.
#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <parquet/column_reader.h>
#include <parquet/file_reader.h>
#include <parquet/schema.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <optional>
#include <vector>

namespace mxlm {
namespace {

constexpr int64_t kMostMemory = int64_t{1} << 30;
constexpr uint32_t kLongestText = uint32_t{256} << 20;  // as for lines

// The rows of one string column of a row group.
class StringColumn {
 public:
  StringColumn(parquet::RowGroupReader& group, int column, std::string file)
      : reader_(group.Column(column)), file_(std::move(file)) {
    strings_ = dynamic_cast<parquet::ByteArrayReader*>(reader_.get());
    if (strings_ == nullptr) damaged("a column has another type than its schema says");
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
  [[noreturn]] void damaged(const char* what) const { fail("{} is damaged: {}; get the file again.", file_, what); }

  bool refill() {
    if (!reader_->HasNext()) return false;
    int64_t read = 0;
    const int64_t levels =
        strings_->ReadBatch(static_cast<int64_t>(values_.size()), definitions_.data(), nullptr, values_.data(), &read);
    if (levels <= 0) damaged("a page has fewer rows than it says");
    const auto present =
        present_ == 0 ? levels : std::count(definitions_.begin(), definitions_.begin() + levels, present_);
    if (read != present) damaged("a page has fewer values than it says");
    levels_ = static_cast<size_t>(levels);
    level_ = value_ = 0;
    return true;
  }

  std::shared_ptr<parquet::ColumnReader> reader_;
  parquet::ByteArrayReader* strings_ = nullptr;
  std::string file_;  // quoted
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

int find_text_column(const parquet::SchemaDescriptor& schema, const std::string& field, const std::string& file) {
  const int column = find_column(schema, field);
  if (column < 0) {
    std::string known;
    for (int i = 0; i < schema.num_columns() && known.size() < 200; ++i) {
      if (!holds_strings(*schema.Column(i))) continue;
      if (!known.empty()) known += ", ";
      known += quote(schema.Column(i)->path()->ToDotString());
    }
    fail("{} has no column {}; name one of its columns of strings ({}) with --field.", file, quote(field),
         known.empty() ? "there is none" : known);
  }
  if (!holds_strings(*schema.Column(column))) {
    fail("The column {} of {} does not hold one string a row; name another with --field.", quote(field), file);
  }
  return column;
}

void read_rows(const FileView& file, const std::string& field,
               const std::function<bool(std::string_view, std::string_view)>& take) {
  const std::string name = quote(file.name());
  arrow::CappedMemoryPool pool(arrow::default_memory_pool(), kMostMemory);
  parquet::ReaderProperties properties(&pool);
  properties.set_page_checksum_verification(true);
  const auto bytes = file.bytes();
  const auto buffer = std::make_shared<arrow::Buffer>(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                      static_cast<int64_t>(bytes.size()));
  const auto reader = parquet::ParquetFileReader::Open(std::make_shared<arrow::io::BufferReader>(buffer), properties);
  const auto metadata = reader->metadata();
  const auto& schema = *metadata->schema();
  const int text_column = find_text_column(schema, field, name);
  int subset_column = find_column(schema, "meta.pile_set_name");
  if (subset_column >= 0 && !holds_strings(*schema.Column(subset_column))) subset_column = -1;

  int64_t number = 0;
  for (int g = 0; g < metadata->num_row_groups(); ++g) {
    const auto group = reader->RowGroup(g);
    StringColumn texts(*group, text_column, name);
    std::optional<StringColumn> subsets;
    if (subset_column >= 0) subsets.emplace(*group, subset_column, name);
    std::optional<std::string_view> text, subset;
    const int64_t rows = group->metadata()->num_rows();
    for (int64_t i = 0; i < rows; ++i) {
      throw_if_interrupted();
      ++number;
      if (!texts.next(text) || (subsets && !subsets->next(subset))) {
        fail("{} is damaged: a column ends in row {} before its row group does; get the file again.", name, number);
      }
      if (!text) fail("Row {} of {} has no value in the column {}; leave such rows out.", number, name, quote(field));
      if (text->size() > kLongestText) {
        fail("Row {} of {} is longer than {} MiB; cut it into documents.", number, name, kLongestText >> 20);
      }
      if (!take(*text, subset.value_or(std::string_view()))) return;
    }
  }
}

}  // namespace

bool parquet_supported() { return true; }

void read_parquet(const FileView& file, const std::string& field,
                  const std::function<bool(std::string_view, std::string_view)>& take) {
  try {
    read_rows(file, field, take);
  } catch (const Error&) {
    throw;
  } catch (const Interrupted&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {  // Arrow's
    fail("{} could not be read as Parquet ({}); get the file again.", quote(file.name()), quote(error.what()));
  }
}

}  // namespace mxlm

#else

namespace mxlm {

bool parquet_supported() { return false; }

void read_parquet(const FileView& file, const std::string& /*field*/,
                  const std::function<bool(std::string_view, std::string_view)>& /*take*/) {
  fail(
      "{} is a Parquet file, and this program was built without Apache Arrow, which reads them; install it (python3 -m "
      "pip install pyarrow, or the packages libarrow-dev and libparquet-dev) and build again.",
      quote(file.name()));
}

}  // namespace mxlm

#endif
