#include "backend/cpu/buffers.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <deque>
#include <mutex>

#include "base/error.hpp"

namespace mxlm::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMost = size_t{1} << 46;  // beyond any machine: a size that went wrong

struct Buffer {
  void* memory = nullptr;
  size_t size = 0;
};

/// Sizes that differ little, as those of two experts' rows, become one: an eighth at most is added, of address space
/// alone until somebody uses it.
size_t size_class(size_t bytes) {
  constexpr size_t kSmall = size_t{64} << 10;
  const size_t step = bytes < kSmall ? kAlignment : std::bit_floor(bytes) / 8;
  return std::max((bytes + step - 1) / step, size_t{1}) * step;
}

Buffer fresh(size_t bytes) {
  // Fewer address translations for what GEMMs stream through; from two huge pages on, so that rounding up costs little.
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
  const size_t size = size_class(bytes);
  void* memory = nullptr;
  if (bytes > kMost || posix_memalign(&memory, alignment, size) != 0) {
    fail("The machine has no {} MB of memory left; use a smaller batch size or context.", bytes >> 20);
  }
  if (alignment == kHugePage) madvise(memory, size / kHugePage * kHugePage, MADV_HUGEPAGE);
  return {memory, size};
}

}  // namespace

struct BufferCache::State {
  explicit State(size_t keep_bytes) : keep(keep_bytes) {}
  ~State() {
    for (const Buffer& b : free) std::free(b.memory);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const size_t keep;
  mutable std::mutex mutex;
  std::deque<Buffer> free;  // oldest first
  size_t used = 0, cached = 0, reuses = 0;

  void give_back(Buffer buffer) {
    const std::lock_guard lock(mutex);
    used -= buffer.size;
    cached += buffer.size;
    free.push_back(buffer);
    while (cached > keep) {
      cached -= free.front().size;
      std::free(free.front().memory);
      free.pop_front();
    }
  }

  /// The smallest kept buffer that fits without wasting more than a quarter, the youngest among equals.
  bool take(size_t bytes, Buffer& out) {
    auto best = free.end();
    for (auto it = free.begin(); it != free.end(); ++it) {
      if (it->size < bytes || it->size > bytes + bytes / 4 + 4096) continue;
      if (best == free.end() || it->size <= best->size) best = it;
    }
    if (best == free.end()) return false;
    out = *best;
    free.erase(best);
    cached -= out.size;
    return true;
  }
};

BufferCache::BufferCache(size_t keep) : state_(std::make_shared<State>(keep)) {}

std::shared_ptr<void> BufferCache::allocate(size_t bytes) {
  Buffer buffer;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->take(bytes, buffer)) ++state_->reuses;
  }
  if (buffer.memory == nullptr) buffer = fresh(bytes);
  {
    const std::lock_guard lock(state_->mutex);
    state_->used += buffer.size;
  }
  return {buffer.memory, [state = state_, buffer](void*) { state->give_back(buffer); }};
}

size_t BufferCache::bytes_used() const {
  const std::lock_guard lock(state_->mutex);
  return state_->used;
}

size_t BufferCache::bytes_cached() const {
  const std::lock_guard lock(state_->mutex);
  return state_->cached;
}

size_t BufferCache::reuses() const {
  const std::lock_guard lock(state_->mutex);
  return state_->reuses;
}

}  // namespace mxlm::cpu
