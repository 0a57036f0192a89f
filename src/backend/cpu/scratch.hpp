#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace mxlm::cpu {

/// Memory of one thread that is kept from call to call, so that a loop which needs it does not pay for fresh pages each
/// time. 64-byte aligned, contents undefined.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// At least `bytes` bytes; what an earlier call returned is no longer valid.
  std::byte* reserve(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      data_ = nullptr;
      size_ = 0;
      const size_t rounded = (bytes + 63) / 64 * 64;
      data_ = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = rounded;
    }
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mxlm::cpu
