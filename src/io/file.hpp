#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace mxlm {

/// Read-only bytes: a memory-mapped file, or memory that outlives the program (the embedded model). Cheap to copy.
class FileView {
 public:
  FileView() = default;
  /// Maps a file. Throws Error naming the path.
  static FileView map(const std::filesystem::path& path);
  /// Refers to memory that is never freed; `name` is used in messages.
  static FileView from_memory(std::string name, std::span<const std::byte> bytes);

  [[nodiscard]] std::span<const std::byte> bytes() const;
  [[nodiscard]] std::string_view text() const;
  [[nodiscard]] const std::string& name() const;
  /// Asks the kernel to read ahead / lets it drop the pages of [offset, offset + size) from this process. No effect on
  /// what is read.
  void will_need(size_t offset, size_t size) const;
  void release(size_t offset, size_t size) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

/// Writes `bytes` to `path` through a temporary file beside it, fsync and rename, so that a full disk never leaves half a
/// file. "-" is stdout. Throws Error naming the path.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// SHA-256 as 64 lowercase hex digits.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace mxlm
