#pragma once

#include <cstddef>
#include <memory>

namespace mxlm::cpu {

/// Memory for activations and weights that is kept when it is given back, so that the next micro-batch and the next
/// layer find pages that are already there. Buffers outlive the cache safely. Thread-safe.
class BufferCache {
 public:
  /// `keep` bounds the bytes kept while nobody uses them; the oldest go first.
  explicit BufferCache(size_t keep);

  /// At least `bytes` bytes, 64-byte aligned, contents undefined. Never null, also for 0 bytes. Throws Error when the
  /// machine has no more memory.
  std::shared_ptr<void> allocate(size_t bytes);

  [[nodiscard]] size_t bytes_used() const;    // handed out
  [[nodiscard]] size_t bytes_cached() const;  // kept for later
  [[nodiscard]] size_t reuses() const;        // allocations that the cache could serve

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace mxlm::cpu
