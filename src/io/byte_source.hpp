#pragma once

// Streams of bytes from files, pipes and compressed files.

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
  /// Fills `buffer`; returns fewer bytes only at the end. Throws Error naming the source.
  virtual size_t read(std::span<std::byte> buffer) = 0;
};

/// The unchanged bytes of a file or pipe; `path` "-" is stdin.
std::unique_ptr<ByteSource> open_plain(const std::filesystem::path& path);

/// The content of one or more Zstandard frames whose window is at most 128 MiB. Messages use `name`.
std::unique_ptr<ByteSource> decompress_zstd(std::unique_ptr<ByteSource> input, std::string name);

/// The content of one or more gzip members. Checksums and lengths are verified. Zero bytes may follow a member, as in
/// Python's gzip.
std::unique_ptr<ByteSource> decompress_gzip(std::unique_ptr<ByteSource> input, std::string name);

}  // namespace mxlm
