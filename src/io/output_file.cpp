#include "io/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/quote.hpp"
#include "io/descriptor.hpp"

namespace mxlm {
namespace {

constexpr size_t kBuffer = size_t{1} << 20;

}  // namespace

OutputFile::OutputFile(std::filesystem::path path) : name_(path.native()), target_(std::move(path)) {
  if (name_.empty()) fail("A file name is empty; name the file to write.");
  if (name_ == "-") {
    name_ = "stdout";
    fd_ = STDOUT_FILENO;
    owned_ = false;
    return;
  }
  struct stat info {};
  if (stat(target_.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) fail("{} is a folder where a file is to be written; name a file in it.", quote(name_));
    if (!S_ISREG(info.st_mode)) {
      fd_ = open(target_.c_str(), O_WRONLY | O_CLOEXEC);
      if (fd_ < 0) fail_errno("written", name_, errno);
      return;
    }
    // Replaces the file behind a link, not the link.
    std::error_code error;
    target_ = std::filesystem::canonical(target_, error);
    if (error) fail_errno("written", name_, error.value());
  }
  open_temporary();
}

void OutputFile::open_temporary() {
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = target_;
    temporary_ += fmt::format(".{}.{}.tmp", getpid(), attempt);
    fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) return;
    if (errno != EEXIST) break;
  }
  const int error = errno;
  temporary_.clear();
  fail_errno("written", name_, error);
}

OutputFile::~OutputFile() {
  if (owned_ && fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() <= kBuffer) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return;
  }
  flush();
  write_all(bytes);
}

void OutputFile::flush() {
  write_all(buffer_);
  buffer_.clear();
}

void OutputFile::write_all(std::span<const std::byte> bytes) {
  // One call writes at most about 2 GiB on Linux.
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) {
      throw_if_interrupted();  // the reader of a pipe may never read on
      continue;
    }
    if (n < 0) fail_errno("written", name_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::commit() {
  flush();
  if (!owned_) return;
  // Pipes and some file systems do not support fsync and return EINVAL or ENOTSUP.
  if (fsync(fd_) != 0 && errno != EINVAL && errno != ENOTSUP) fail_errno("written", name_, errno);
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0 && errno != EINTR) fail_errno("written", name_, errno);
  if (temporary_.empty()) return;
  if (rename(temporary_.c_str(), target_.c_str()) != 0) fail_errno("written", name_, errno);
  temporary_.clear();
}

void check_output(const std::filesystem::path& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode)) {
    if (access(path.c_str(), W_OK) != 0) fail_errno("written", path.native(), errno);
    return;
  }
  // Creating a file beside it finds more than permissions can: read-only file systems, quotas.
  const OutputFile probe(path);
}

}  // namespace mxlm
