#include "backend/cpu/buffers.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
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
  const size_t step = bytes < kSmall ? kAlignment : std::bit_floor(bytes) / 8;  // whole pages
  return std::max((bytes + step - 1) / step, size_t{1}) * step;
}

[[noreturn]] void fail_without_memory(size_t bytes) {
  constexpr size_t kMega = size_t{1} << 20;
  fail(
      "Another {} MB of memory cannot be had: the machine, or a limit of this process, has no more; use a smaller "
      "--batch-size or --context.",
      (bytes + kMega - 1) / kMega);
}

// What is this large comes from the kernel and goes back to it: malloc would keep it, in pieces.
constexpr size_t kMapped = size_t{256} << 10;
#ifdef __SANITIZE_ADDRESS__
constexpr bool kMaps = false;  // the sanitizer watches over the ends of what malloc gave
#else
constexpr bool kMaps = true;
#endif

/// `size` bytes of a class.
Buffer fresh(size_t size) {
  // Fewer address translations for what GEMMs stream through; from two huge pages on, so that rounding up costs little.
  const size_t alignment = size >= 2 * kHugePage ? kHugePage : kAlignment;
  void* memory = nullptr;
  if (kMaps && size >= kMapped) {
    const size_t slack = alignment == kHugePage ? kHugePage : 0;
    memory = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail_without_memory(size);
    if (slack > 0) {
      auto* const begin = static_cast<std::byte*>(memory);
      const size_t before = (slack - reinterpret_cast<uintptr_t>(begin) % slack) % slack;
      if (before > 0) munmap(begin, before);
      if (before < slack) munmap(begin + before + size, slack - before);
      memory = begin + before;
    }
  } else if (posix_memalign(&memory, alignment, size) != 0) {
    fail_without_memory(size);
  }
  if (alignment == kHugePage) madvise(memory, size / kHugePage * kHugePage, MADV_HUGEPAGE);
  return {memory, size};
}

void release(const Buffer& buffer) {
  if (kMaps && buffer.size >= kMapped) {
    munmap(buffer.memory, buffer.size);
  } else {
    std::free(buffer.memory);
  }
}

}  // namespace

struct BufferCache::State {
  explicit State(size_t keep_bytes) : keep(keep_bytes) {}
  ~State() {
    for (const Buffer& b : free) release(b);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const size_t keep;
  mutable std::mutex mutex;
  std::deque<Buffer> free;  // oldest first
  size_t used = 0, cached = 0, most_used = 0, reuses = 0;

  void give_back(Buffer buffer) {
    const std::lock_guard lock(mutex);
    used -= buffer.size;
    cached += buffer.size;
    free.push_back(buffer);
    trim(keep);
  }

  void trim(size_t most) {
    while (cached > most) {
      cached -= free.front().size;
      release(free.front());
      free.pop_front();
    }
  }

  /// The smallest kept buffer of `bytes` to `most` bytes, the youngest among equals.
  bool take(size_t bytes, size_t most, Buffer& out) {
    auto best = free.end();
    for (auto it = free.begin(); it != free.end(); ++it) {
      if (it->size < bytes || it->size > most) continue;
      if (best == free.end() || it->size <= best->size) best = it;
    }
    if (best == free.end()) return false;
    out = *best;
    free.erase(best);
    cached -= out.size;
    ++reuses;
    return true;
  }

  /// A kept buffer, or the size of one to be made. What is kept never adds to the most that was in use at once, so that
  /// it needs no room in a plan: where it would, one that is too large is better than new pages.
  Buffer choose(size_t bytes) {
    Buffer buffer;
    if (take(bytes, bytes + bytes / 4 + 4096, buffer)) return buffer;
    buffer.size = size_class(bytes);
    const size_t needed = used + buffer.size;
    if (needed + cached <= most_used || take(bytes, SIZE_MAX, buffer)) return buffer;
    trim(std::max(most_used, needed) - needed);
    return buffer;
  }
};

BufferCache::BufferCache(size_t keep) : state_(std::make_shared<State>(keep)) {}

std::shared_ptr<void> BufferCache::allocate(size_t bytes) {
  if (bytes > kMost) fail_without_memory(bytes);
  Buffer buffer;
  {
    const std::lock_guard lock(state_->mutex);
    buffer = state_->choose(bytes);
  }
  if (buffer.memory == nullptr) buffer = fresh(buffer.size);
  {
    const std::lock_guard lock(state_->mutex);
    state_->used += buffer.size;
    state_->most_used = std::max(state_->most_used, state_->used);
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
