// Builds and runs where Arrow's C++ library works with this compiler; see arrow.cmake.
#include <arrow/buffer.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <parquet/column_reader.h>
#include <parquet/file_reader.h>

#include <exception>

int main() {
  arrow::CappedMemoryPool pool(arrow::default_memory_pool(), 1 << 20);
  const uint8_t bytes[] = "this is no Parquet";
  try {
    parquet::ParquetFileReader::Open(
        std::make_shared<arrow::io::BufferReader>(std::make_shared<arrow::Buffer>(bytes, sizeof(bytes))),
        parquet::ReaderProperties(&pool));
  } catch (const std::exception&) {
    return 0;
  }
  return 1;
}
