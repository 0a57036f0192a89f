#pragma once

// POSIX file descriptors that close themselves, and their errors as sentences.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace mxlm {

/// Owns a POSIX file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd, bool owned = true) : fd_(fd), owned_(owned) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)), owned_(other.owned_) {}
  Descriptor& operator=(Descriptor&&) = delete;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
  bool owned_;
};

/// Opens a file (not a folder) for reading. With `wait`, opening a pipe waits for its writer. Throws Error naming the
/// path.
Descriptor open_for_reading(const std::filesystem::path& path, bool wait = true);

/// Reads up to `buffer.size()` bytes, fewer only at the end. Throws Error naming `name`.
size_t read_fully(const Descriptor& file, std::span<std::byte> buffer, const std::string& name);

/// Throws Error that `name` could not be `action` ("written"), with the system's reason and what to do.
[[noreturn]] void fail_errno(const char* action, const std::string& name, int error);

}  // namespace mxlm
