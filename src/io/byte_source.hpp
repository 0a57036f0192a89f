#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace mxlm {

/// A stream of bytes from outside.
class ByteSource {
 public:
  ByteSource() = default;
  virtual ~ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  /// Fills `buffer` as far as there is something; fewer bytes than asked for only at the end. Throws Error naming the
  /// source.
  virtual size_t read(std::span<std::byte> buffer) = 0;
};

/// The bytes of a file or pipe as they are; `path` "-" is stdin.
std::unique_ptr<ByteSource> open_plain(const std::filesystem::path& path);

/// The content of one or more Zstandard frames whose window needs no more than 128 MiB; `name` is used in messages.
std::unique_ptr<ByteSource> decompress_zstd(std::unique_ptr<ByteSource> input, std::string name);

/// The content of one or more gzip members; checksums and lengths are verified. Zero bytes may follow a member, as
/// Python's gzip allows.
std::unique_ptr<ByteSource> decompress_gzip(std::unique_ptr<ByteSource> input, std::string name);

}  // namespace mxlm
