#pragma once

// Notices that a file changed while it was open.

#include <sys/stat.h>

#include <ctime>
#include <optional>

namespace mxlm {

/// Shows whether an open file was written to, or its name or mode changed.
struct FileStamp {
  off_t size = 0;
  timespec written{}, changed{};  // mtime, ctime

  explicit FileStamp(const struct stat& info) : size(info.st_size), written(info.st_mtim), changed(info.st_ctim) {}
  /// nullopt if the file system does not say, for example because the file's server lost it.
  static std::optional<FileStamp> of(int fd) {
    struct stat info {};
    return fstat(fd, &info) == 0 ? std::optional(FileStamp(info)) : std::nullopt;
  }

  /// A rename, another link and a mode leave size and mtime as they are.
  [[nodiscard]] bool same_content(const FileStamp& other) const {
    return size == other.size && same(written, other.written);
  }
  bool operator==(const FileStamp& other) const { return same_content(other) && same(changed, other.changed); }

 private:
  static bool same(const timespec& a, const timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }
};

}  // namespace mxlm
