#pragma once

// What becomes of a process that reads a mapped page which its file no longer has: the kernel sends SIGBUS.

#include <cstddef>
#include <span>

namespace mxlm {

/// Makes such an end a sentence that names the file, with exit code 1. SIGBUS of another cause ends the process as
/// before. For the program; the library leaves signals alone.
void explain_cut_files();

/// While it lives, explain_cut_files() knows a mapping. Beyond 4,096 mappings at a time it knows no more of them.
class ExplainedMapping {
 public:
  /// `shown` is how messages name the file and outlives the object, as do the mapping and its descriptor.
  ExplainedMapping(std::span<const std::byte> bytes, int fd, const char* shown);
  ~ExplainedMapping();
  ExplainedMapping(const ExplainedMapping&) = delete;
  ExplainedMapping& operator=(const ExplainedMapping&) = delete;

 private:
  size_t slot_;
};

}  // namespace mxlm
