#include "io/descriptor.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

std::string_view remedy(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return "check the path";
    case EACCES:
    case EPERM:
      return "check its permissions";
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "free some space or name another place";
    case EPIPE:
      return "the program that was reading it has ended";
    case EROFS:
      return "name another place";
    default:
      return "check the disk or name another file";
  }
}

}  // namespace

void fail_errno(const char* action, const std::string& name, int error) {
  fail("{} could not be {} ({}); {}.", quote(name), action, std::generic_category().message(error), remedy(error));
}

Descriptor::~Descriptor() {
  if (owned_ && fd_ >= 0) close(fd_);
}

Descriptor open_for_reading(const std::filesystem::path& path, bool wait) {
  if (path.empty()) fail("A file name is empty; name the file to read.");
  int fd = -1;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | (wait ? 0 : O_NONBLOCK));
  } while (fd < 0 && errno == EINTR && !interrupt_requested());
  if (fd < 0) {
    throw_if_interrupted();
    fail_errno("read", path.native(), errno);
  }
  Descriptor file(fd);
  struct stat info {};
  if (fstat(fd, &info) != 0) fail_errno("read", path.native(), errno);
  if (S_ISDIR(info.st_mode)) fail("{} is a folder where a file is needed; name a file in it.", quote(path.native()));
  return file;
}

size_t read_fully(const Descriptor& file, std::span<std::byte> buffer, const std::string& name) {
  size_t done = 0;
  while (done < buffer.size()) {
    throw_if_interrupted();
    const ssize_t n = read(file.get(), buffer.data() + done, buffer.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("read", name, errno);
    if (n == 0) {
      throw_if_interrupted();  // Ctrl-C also ends the writer of a pipe
      break;
    }
    done += static_cast<size_t>(n);
  }
  return done;
}

}  // namespace mxlm
