// mxlm-parquet FIELD: writes the rows of the Parquet file on stdin to stdout, for src/io/parquet.cpp. Each piece is a
// letter, a length (8 bytes, little-endian) and so many bytes: S the subset of the next row, where it has one; T the
// text of a row; E what is wrong with the file, and the end; D, empty, the end.
//
// It is a program of its own because Arrow's libraries bring other versions of libraries that mxlm uses, under the same
// names; and so that damage that Arrow does not notice ends this process only.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "parquet/rows.hpp"

namespace {

bool write_piece(char kind, std::string_view bytes) {
  unsigned char head[9] = {static_cast<unsigned char>(kind)};
  for (int i = 0; i < 8; ++i) head[1 + i] = static_cast<unsigned char>(static_cast<uint64_t>(bytes.size()) >> (8 * i));
  return std::fwrite(head, 1, sizeof(head), stdout) == sizeof(head) &&
         std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size();
}

int run(const char* field) {
  struct stat info {};
  if (fstat(STDIN_FILENO, &info) != 0 || !S_ISREG(info.st_mode)) {
    std::fputs("mxlm-parquet is a part of mxlm and reads a file on its standard input.\n", stderr);
    return 2;
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* memory = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, STDIN_FILENO, 0);
  if (memory == MAP_FAILED) memory = nullptr;
  const std::span<const std::byte> file(static_cast<const std::byte*>(memory), memory == nullptr ? 0 : size);

  bool written = true;
  try {
    mxlm::parquet_reader::read_rows(file, field, [&](std::string_view text, std::string_view subset) {
      written = (subset.empty() || write_piece('S', subset)) && write_piece('T', text);
      return written;
    });
    written = written && write_piece('D', "");
  } catch (const std::exception& error) {
    written = write_piece('E', error.what());
  }
  // The reader closes the pipe when it has enough.
  return written && std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fputs("usage: mxlm-parquet FIELD < FILE    (a part of mxlm, which runs it)\n", stderr);
    return 2;
  }
  return run(arguments[1]);
}
