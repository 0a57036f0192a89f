#include "backend/cuda/runtime.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include "base/error.hpp"

namespace mxlm::cuda {

void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  // Errors that leave the context usable are not to be seen again by the next check.
  cudaGetLastError();
  if (status == cudaErrorMemoryAllocation) {
    throw OutOfDeviceMemory(fmt::format("The GPU has no memory left for {}; use a smaller batch size.", doing));
  }
  fail("The GPU reported '{}' while {}; if it repeats, run with --device cpu.", cudaGetErrorString(status), doing);
}

void check_targets(std::span<const int32_t> targets, int64_t vocabulary) {
  for (const int32_t target : targets) {
    if (target < 0 || target >= vocabulary) {
      fail("Token id {} is outside the LM head's vocabulary of {}; use the tokenizer that belongs to the model.",
           target, vocabulary);
    }
  }
}

namespace {

constexpr size_t kAlignment = 256;

/// Sizes that differ little become one, so that what was freed fits what comes next: an eighth at most is added.
size_t size_class(size_t bytes) {
  constexpr size_t kSmall = size_t{64} << 10;
  const size_t step = bytes < kSmall ? kAlignment : std::bit_floor(bytes) / 8;
  return std::max((bytes + step - 1) / step, size_t{1}) * step;
}

}  // namespace

struct DeviceCache::State {
  explicit State(uint64_t limit_bytes) : limit(limit_bytes) {}
  ~State() { drop(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Gives all free buffers back to the device.
  void drop() {
    for (const auto& [size, memory] : free) cudaFree(memory);
    for (const auto& [size, memory] : free) held -= size;
    free.clear();
  }

  void* take(size_t size) {
    const std::lock_guard lock(mutex);
    const auto found = free.find(size);
    if (found != free.end()) {
      void* memory = found->second;
      free.erase(found);
      used += size;
      peak = std::max(peak, used);
      return memory;
    }
    if (held + size > limit) drop();
    void* memory = nullptr;
    if (held + size > limit) {
      throw OutOfDeviceMemory(fmt::format(
          "The GPU has no memory left ({} MB in use of {} MB that may be, {} MB more wanted); use a smaller "
          "batch size, or --stream.",
          held >> 20, limit >> 20, size >> 20));
    }
    cudaError_t status = cudaMalloc(&memory, size);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      drop();
      status = cudaMalloc(&memory, size);
    }
    check(status, "its tensors");
    held += size;
    used += size;
    peak = std::max(peak, used);
    return memory;
  }

  void give(void* memory, size_t size) {
    const std::lock_guard lock(mutex);
    used -= size;
    free.emplace(size, memory);
  }

  std::mutex mutex;
  std::multimap<size_t, void*> free;
  uint64_t limit, held = 0, used = 0, peak = 0;
};

DeviceCache::DeviceCache(uint64_t limit) : state_(std::make_shared<State>(limit)) {}
DeviceCache::~DeviceCache() = default;

std::shared_ptr<void> DeviceCache::allocate(size_t bytes) {
  const size_t size = size_class(bytes);
  void* memory = state_->take(size);
  return {memory, [state = state_, size](void* p) { state->give(p, size); }};
}

uint64_t DeviceCache::used() const { return state_->used; }
uint64_t DeviceCache::peak() const { return state_->peak; }
uint64_t DeviceCache::limit() const { return state_->limit; }

Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return Stream(stream);
}

std::shared_ptr<void> record_event(cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "making an event");
  std::shared_ptr<void> out(event, [](void* e) { cudaEventDestroy(static_cast<cudaEvent_t>(e)); });
  check(cudaEventRecord(event, stream), "recording an event");
  return out;
}

}  // namespace mxlm::cuda
