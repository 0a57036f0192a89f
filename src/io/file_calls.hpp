#pragma once

// System calls that write files durably, and a way for tests to let them fail.

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace mxlm {

/// The system calls through which a journal changes files, in one place where tests let them fail. The members have the
/// calls' names and behaviour unless a test overrides them.
class FileCalls {
 public:
  FileCalls() = default;
  FileCalls(const FileCalls&) = delete;
  FileCalls& operator=(const FileCalls&) = delete;
  virtual ~FileCalls() = default;
  virtual int open(const char* path, int flags, mode_t mode);
  virtual ssize_t write(int fd, const void* data, size_t size);
  virtual int fsync(int fd);
  virtual int ftruncate(int fd, off_t size);
  virtual int rename(const char* from, const char* to);
};

/// The system's calls.
FileCalls& system_calls();

/// Writes all bytes. Returns 0, or the errno of the call that failed, after which some bytes may have been written.
int write_bytes(FileCalls& calls, int fd, std::span<const std::byte> bytes);

/// Makes the names in a folder durable if its file system can. Returns 0 or an errno.
int sync_folder(FileCalls& calls, const std::filesystem::path& folder);

/// Writes `text` to `path`, whole or not at all, and durably: a temporary file, fsync, rename, and fsync of the folder.
/// Returns 0 or an errno.
int replace_file(FileCalls& calls, const std::filesystem::path& path, std::string_view text);

}  // namespace mxlm
