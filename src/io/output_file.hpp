#pragma once

// Output files that appear whole or not at all.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace mxlm {

/// A file that appears under its name only when it is complete: it is written to a temporary file beside it, then fsync
/// and rename. "-" is stdout; an existing path that is not a regular file (a device, a pipe) is written directly. Every
/// member throws Error naming the path.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  /// Removes the temporary file if commit() was not reached.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  void open_temporary();
  void flush();
  void write_all(std::span<const std::byte> bytes);

  std::string name_;  // the user's name for it, for messages
  std::filesystem::path target_, temporary_;
  std::vector<std::byte> buffer_;
  int fd_ = -1;
  bool owned_ = true;
};

/// Throws Error, as OutputFile does, if `path` cannot be written. Leaves no file behind and does not wait for the
/// reader of a pipe.
void check_output(const std::filesystem::path& path);

}  // namespace mxlm
