#pragma once

// Read-only bytes of mapped files, hashes of them, and files that are replaced whole.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace mxlm {

/// Read-only bytes: a memory-mapped file, memory that outlives the program (the embedded model), or bytes that the view
/// owns. Cheap to copy; the bytes stay valid while any copy lives.
class FileView {
 public:
  FileView() = default;
  /// Maps a regular file. Throws Error naming the path if it is missing, empty, a folder, or unreadable. The size is
  /// read once: if another program truncates the mapped file, SIGBUS ends this process (explain_cut_files turns that
  /// into a sentence). The file stays open while it is mapped.
  static FileView map(const std::filesystem::path& path);
  /// Refers to memory that is never freed. Messages use `name`.
  static FileView from_memory(std::string name, std::span<const std::byte> bytes);
  /// Takes ownership of bytes. Messages use `name`.
  static FileView from_owned(std::string name, std::vector<std::byte> bytes);

  [[nodiscard]] std::span<const std::byte> bytes() const;
  [[nodiscard]] std::string_view text() const;
  /// The path or name of this view ("" for a default-constructed view).
  [[nodiscard]] const std::string& name() const;
  /// Asks the kernel to read pages of [offset, offset + size) ahead, or to drop them from this process. Every page that
  /// the range touches is read ahead; only pages inside the range are dropped. The contents never change; ranges past
  /// the end are cut. Does nothing for memory that is not a mapped file.
  void will_need(size_t offset, size_t size) const;
  void release(size_t offset, size_t size) const;
  /// SHA-256 of all bytes in hex; a mapped file remembers it. Releases the pages that it read. Throws Error if the file
  /// changes meanwhile, and Interrupted.
  [[nodiscard]] std::string sha256() const;

  /// From now on, throw_if_changed() watches the file while any copy of the view lives. Memory never changes.
  void watch() const;
  /// Throws FilesChanged if watched files no longer hold the bytes that they held when they were mapped. Size and times
  /// decide (fstat; a network file system may report them late). If sha256() is known, the hash decides instead: a
  /// rename, a link, a mode or new times change no byte. Throws Interrupted.
  static void throw_if_changed();

 private:
  struct State;
  struct Watched;
  std::shared_ptr<const State> state_;
};

/// Files that a run depends on were written to during the run.
class FilesChanged : public Error {
 public:
  explicit FilesChanged(const std::vector<std::string>& names);
};

/// Writes `bytes` to `path` through a temporary file beside it, fsync and rename, so that a full disk never leaves half
/// a file. "-" is stdout, and a terminal receives printable_lines of the bytes; devices and pipes are written directly.
/// Throws Error naming the path.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// SHA-256 as 64 lowercase hex digits.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace mxlm
