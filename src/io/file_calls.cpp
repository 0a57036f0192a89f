#include "io/file_calls.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace mxlm {

int FileCalls::open(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }
ssize_t FileCalls::write(int fd, const void* data, size_t size) { return ::write(fd, data, size); }
int FileCalls::fsync(int fd) { return ::fsync(fd); }
int FileCalls::ftruncate(int fd, off_t size) { return ::ftruncate(fd, size); }
int FileCalls::rename(const char* from, const char* to) { return ::rename(from, to); }

FileCalls& system_calls() {
  static FileCalls calls;
  return calls;
}

int write_bytes(FileCalls& calls, int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = calls.write(fd, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return 0;
}

int replace_file(FileCalls& calls, const std::filesystem::path& path, std::string_view text) {
  std::filesystem::path temporary = path;
  temporary += ".new";
  // Removes what a crash left; never writes into a file that somebody else made.
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT) return errno;
  const int fd = calls.open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno;
  int error = write_bytes(calls, fd, std::as_bytes(std::span(text)));
  if (error == 0 && calls.fsync(fd) != 0) error = errno;
  ::close(fd);
  if (error == 0 && calls.rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) return error;
  return sync_folder(calls, path.parent_path());
}

int sync_folder(FileCalls& calls, const std::filesystem::path& folder) {
  const int fd = calls.open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  // This process cannot synchronise a folder that it may enter but not list.
  if (fd < 0) return errno == EACCES ? 0 : errno;
  // Some file systems do not support fsync of a folder.
  const int error = calls.fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP ? errno : 0;
  ::close(fd);
  return error;
}

}  // namespace mxlm
