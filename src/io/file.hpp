#pragma once

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
/// owns. Cheap to copy; the bytes stay valid as long as one copy lives.
class FileView {
 public:
  FileView() = default;
  /// Maps a regular file. Throws Error naming the path when it is missing, empty, a folder, or may not be read. The
  /// size is taken once: a file that another program truncates while it is mapped ends this process with SIGBUS
  /// (explain_cut_files makes that a sentence). The file stays open as long as it is mapped.
  static FileView map(const std::filesystem::path& path);
  /// Refers to memory that is never freed; `name` is used in messages.
  static FileView from_memory(std::string name, std::span<const std::byte> bytes);
  /// Takes bytes over; `name` is used in messages.
  static FileView from_owned(std::string name, std::vector<std::byte> bytes);

  [[nodiscard]] std::span<const std::byte> bytes() const;
  [[nodiscard]] std::string_view text() const;
  /// The path or name this view was made with ("" for a default-constructed view).
  [[nodiscard]] const std::string& name() const;
  /// Asks the kernel to read ahead / lets it drop the pages of [offset, offset + size) from this process: every page
  /// that the range touches is read ahead, only pages that lie wholly inside it are dropped. No effect on what is read;
  /// ranges past the end are cut; nothing happens for memory that is not a mapped file.
  void will_need(size_t offset, size_t size) const;
  void release(size_t offset, size_t size) const;
  /// SHA-256 of all bytes, in hex, which a mapped file remembers. Pages read for it are released again. Throws Error if
  /// the file changes meanwhile, and Interrupted.
  [[nodiscard]] std::string sha256() const;

  /// From now on, as long as a copy lives, throw_if_changed() looks at the file. Memory never changes.
  void watch() const;
  /// Throws FilesChanged if files that are watched no longer hold the bytes that they held when they were mapped. Size
  /// and times tell (fstat; on a network file system as late as that shows them); where sha256() is known, it has the
  /// last word: a new name, a link, a mode or new times change no byte. Throws Interrupted.
  static void throw_if_changed();

 private:
  struct State;
  struct Watched;
  std::shared_ptr<const State> state_;
};

/// Files that a run depends on were written to while it ran.
class FilesChanged : public Error {
 public:
  explicit FilesChanged(const std::vector<std::string>& names);
};

/// Writes `bytes` to `path` through a temporary file beside it, fsync and rename, so that a full disk never leaves half
/// a file. "-" is stdout, where a terminal is given printable_lines of them; devices and pipes are written directly.
/// Throws Error naming the path.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// SHA-256 as 64 lowercase hex digits.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace mxlm
