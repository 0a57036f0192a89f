#pragma once

// What happens when a process reads a mapped page that its file no longer has: the kernel sends SIGBUS.

#include <cstddef>
#include <span>

namespace mxlm {

/// Turns such an end into a sentence that names the file, with exit code 1. A SIGBUS of another cause ends the process
/// as before. For the program; the library leaves signals alone.
void explain_cut_files();

/// While this object lives, explain_cut_files() knows a mapping. It knows at most 4,096 mappings at a time.
class ExplainedMapping {
 public:
  /// Messages name the file `shown`. `shown`, the mapping and its descriptor outlive the object.
  ExplainedMapping(std::span<const std::byte> bytes, int fd, const char* shown);
  ~ExplainedMapping();
  ExplainedMapping(const ExplainedMapping&) = delete;
  ExplainedMapping& operator=(const ExplainedMapping&) = delete;

 private:
  size_t slot_;
};

}  // namespace mxlm
