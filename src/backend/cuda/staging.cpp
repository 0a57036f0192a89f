#include "backend/cuda/staging.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "base/parallel.hpp"

namespace mxlm::cuda {
namespace {

/// Pinned host memory.
struct Pinned {
  explicit Pinned(size_t bytes) { check(cudaMallocHost(&data, bytes), "pinned memory"); }
  ~Pinned() { cudaFreeHost(data); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  void* data = nullptr;
};

}  // namespace

// --- small uploads

struct SmallUploads::State {
  static constexpr size_t kSize = size_t{4} << 20;
  static constexpr size_t kHalves = 2;
  Pinned ring{kSize * kHalves};
  size_t half = 0, at = 0;
  std::shared_ptr<void> done[kHalves];  // events behind the last use of each half
};

SmallUploads::SmallUploads() : state_(std::make_unique<State>()) {}
SmallUploads::~SmallUploads() = default;

void SmallUploads::copy(void* to, const void* from, size_t bytes, cudaStream_t stream) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  while (bytes > 0) {
    if (state_->at == State::kSize) {
      state_->done[state_->half] = record_event(stream);
      state_->half = (state_->half + 1) % State::kHalves;
      state_->at = 0;
      if (const auto& event = state_->done[state_->half]) {
        check(cudaEventSynchronize(event_of(event)), "waiting for an upload");
      }
    }
    const size_t part = std::min(bytes, State::kSize - state_->at);
    auto* pinned = static_cast<std::byte*>(state_->ring.data) + state_->half * State::kSize + state_->at;
    std::memcpy(pinned, source, part);
    check(cudaMemcpyAsync(target, pinned, part, cudaMemcpyHostToDevice, stream), "an upload");
    state_->at += (part + 15) / 16 * 16;
    state_->at = std::min(state_->at, State::kSize);
    source += part;
    target += part;
    bytes -= part;
  }
}

// --- whole matrices

namespace {

constexpr size_t kChunk = size_t{32} << 20;
constexpr int kChunks = 4;
constexpr int kMostReaders = 8;

size_t row_bytes(const HostMatrix& m) { return static_cast<size_t>(m.cols) * dtype_size(m.type); }

int64_t device_stride(const HostMatrix& m) { return m.type == DType::bf16 ? padded(m.cols) : m.cols; }

}  // namespace

struct Staging::State {
  State(DeviceCache& cache, cudaStream_t compute_stream, int device_index, uint64_t budget_bytes)
      : memory(cache),
        compute(compute_stream),
        device(device_index),
        budget(budget_bytes),
        readers(std::clamp(default_thread_count(), 1, kMostReaders)),
        stream(make_stream()) {
    for (int i = 0; i < kChunks; ++i) chunks.push_back(std::make_unique<Pinned>(kChunk));
    events.resize(kChunks);
    uploader = std::thread([this] { run(); });
  }

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    uploader.join();
    cudaStreamSynchronize(stream.get());
  }

  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// A matrix that is wanted, on its way, or there.
  struct Entry {
    HostMatrix source;
    std::shared_ptr<void> before;  // event: whatever used the memory earlier is done
    std::shared_ptr<void> memory;
    std::shared_ptr<void> arrived;  // event, once all its copies are asked for
    std::exception_ptr error;
    bool waited = false;  // the compute stream waits for `arrived` already
    bool counted = true;  // in `ahead`
  };

  [[nodiscard]] static size_t bytes_of(const HostMatrix& m) {
    return static_cast<size_t>(m.rows * device_stride(m)) * dtype_size(m.type);
  }

  /// Gives an entry its memory, on the thread that asks for operations, so that the event orders it with them.
  void allocate(Entry& entry) {
    const size_t bytes = bytes_of(entry.source);
    const size_t slack =
        static_cast<size_t>((kRowSlack - 1) * device_stride(entry.source)) * dtype_size(entry.source.type);
    entry.memory = memory.allocate(std::max<size_t>(bytes + slack, 1));
    check(cudaMemsetAsync(static_cast<std::byte*>(entry.memory.get()) + bytes, 0, slack, compute), "an upload");
    entry.before = record_event(compute);
    if (entry.counted) ahead += bytes_of(entry.source);
  }

  void run() {
    cudaSetDevice(device);
    while (true) {
      std::shared_ptr<Entry> entry;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stop || !queue.empty(); });
        if (stop) return;
        entry = queue.front();
        queue.pop_front();
      }
      std::shared_ptr<void> arrived;
      std::exception_ptr error;
      try {
        arrived = bring(*entry);
      } catch (...) {
        error = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex);
        entry->arrived = std::move(arrived);
        entry->error = error;
      }
      changed.notify_all();
    }
  }

  /// Reads the rows into pinned chunks, in parallel, and sends them on. Returns the event behind the last copy.
  std::shared_ptr<void> bring(const Entry& entry) {
    const HostMatrix& m = entry.source;
    check(cudaStreamWaitEvent(stream.get(), event_of(entry.before), 0), "ordering an upload");
    const size_t width = row_bytes(m);
    const size_t pitch = static_cast<size_t>(device_stride(m)) * dtype_size(m.type);
    auto* target = static_cast<std::byte*>(entry.memory.get());
    if (pitch != width && m.rows > 0) {
      check(cudaMemset2DAsync(target + width, pitch, 0, pitch - width, static_cast<size_t>(m.rows), stream.get()),
            "an upload");
    }
    if (width == 0) return record_event(stream.get());
    // Rows longer than a chunk go in pieces.
    const size_t piece = std::min(width, kChunk);
    const auto rows_a_chunk = static_cast<int64_t>(std::max<size_t>(kChunk / width, 1));
    for (int64_t first = 0; first < m.rows; first += rows_a_chunk) {
      const int64_t rows = std::min(rows_a_chunk, m.rows - first);
      for (size_t column = 0; column < width; column += piece) {
        const size_t part = std::min(piece, width - column);
        const size_t slot = next_chunk++ % kChunks;
        if (events[slot]) check(cudaEventSynchronize(event_of(events[slot])), "waiting for an upload");
        auto* pinned = static_cast<std::byte*>(chunks[slot]->data);
        const auto step = static_cast<size_t>(m.stride) * dtype_size(m.type);
        const int64_t tasks = std::min<int64_t>(rows, 4L * readers.threads());
        if (tasks > 1) {
          readers.run(tasks, [&](int64_t task, int /*worker*/) {
            for (int64_t r = rows * task / tasks; r < rows * (task + 1) / tasks; ++r) {
              std::memcpy(pinned + static_cast<size_t>(r) * part,
                          m.data + static_cast<size_t>(first + r) * step + column, part);
            }
          });
        } else {
          for (int64_t r = 0; r < rows; ++r) {
            std::memcpy(pinned + static_cast<size_t>(r) * part, m.data + static_cast<size_t>(first + r) * step + column,
                        part);
          }
        }
        auto* to = target + static_cast<size_t>(first) * pitch + column;
        if (pitch == width && part == width) {
          check(cudaMemcpyAsync(to, pinned, static_cast<size_t>(rows) * part, cudaMemcpyHostToDevice, stream.get()),
                "an upload");
        } else {
          check(cudaMemcpy2DAsync(to, pitch, pinned, part, part, static_cast<size_t>(rows), cudaMemcpyHostToDevice,
                                  stream.get()),
                "an upload");
        }
        events[slot] = record_event(stream.get());
      }
    }
    return record_event(stream.get());
  }

  /// Allocates for matrices that wait, in their order, as far as the budget goes. Called with the lock.
  void admit() {
    while (!waiting.empty() && (ahead == 0 || ahead + bytes_of(waiting.front()->source) <= budget)) {
      auto entry = waiting.front();
      try {
        allocate(*entry);
      } catch (const OutOfDeviceMemory&) {
        return;  // it was only a hint; whoever needs the matrix asks again
      }
      waiting.pop_front();
      queue.push_back(std::move(entry));
    }
  }

  DeviceCache& memory;
  const cudaStream_t compute;
  const int device;
  const uint64_t budget;

  std::mutex mutex;
  std::condition_variable changed;
  std::map<const std::byte*, std::shared_ptr<Entry>> entries;
  std::deque<std::shared_ptr<Entry>> waiting;  // without memory yet
  std::deque<std::shared_ptr<Entry>> queue;    // with memory, for the uploader
  uint64_t ahead = 0;                          // bytes that entries hold
  bool stop = false;

  ThreadPool readers;
  Stream stream;
  std::vector<std::unique_ptr<Pinned>> chunks;
  std::vector<std::shared_ptr<void>> events;  // behind the last use of each chunk
  size_t next_chunk = 0;
  std::thread uploader;
};

Staging::Staging(DeviceCache& memory, cudaStream_t compute, int device, uint64_t budget)
    : state_(std::make_unique<State>(memory, compute, device, budget)) {}
Staging::~Staging() = default;

void Staging::prefetch(const HostMatrix& source) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->entries.contains(source.data)) return;
    auto entry = std::make_shared<State::Entry>();
    entry->source = source;
    state_->entries.emplace(source.data, entry);
    state_->waiting.push_back(std::move(entry));
    state_->admit();
  }
  state_->changed.notify_all();
}

Staging::Arrived Staging::get(const HostMatrix& source) {
  std::shared_ptr<State::Entry> entry;
  {
    std::unique_lock lock(state_->mutex);
    auto found = state_->entries.find(source.data);
    if (found != state_->entries.end() && (found->second->error || found->second->source.rows != source.rows ||
                                           found->second->source.cols != source.cols)) {
      // A failed hint, or another matrix that starts at the same place.
      state_->ahead -= found->second->memory ? State::bytes_of(found->second->source) : 0;
      std::erase(state_->waiting, found->second);
      state_->entries.erase(found);
      found = state_->entries.end();
    }
    if (found == state_->entries.end()) {
      // Nobody announced it, so nobody will say when it is gone from the host's memory: it is not remembered.
      entry = std::make_shared<State::Entry>();
      entry->source = source;
      entry->counted = false;
    } else {
      entry = found->second;
    }
    if (!entry->memory) {
      std::erase(state_->waiting, entry);
      state_->allocate(*entry);
      state_->queue.push_front(entry);
    }
  }
  state_->changed.notify_all();
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return entry->arrived || entry->error; });
  if (entry->error) std::rethrow_exception(entry->error);
  if (!entry->waited) {
    check(cudaStreamWaitEvent(state_->compute, event_of(entry->arrived), 0), "waiting for an upload");
    entry->waited = true;
  }
  return {.view = {.data = entry->memory.get(),
                   .type = source.type,
                   .rows = source.rows,
                   .cols = source.cols,
                   .stride = device_stride(source)},
          .memory = entry->memory};
}

void Staging::forget(const HostMatrix& source) {
  {
    std::unique_lock lock(state_->mutex);
    const auto found = state_->entries.find(source.data);
    if (found == state_->entries.end()) return;
    const auto entry = found->second;
    state_->entries.erase(found);
    std::erase(state_->waiting, entry);
    if (entry->memory) {
      // On its way still: its memory must not be used again before it has come.
      state_->changed.wait(lock, [&] { return entry->arrived || entry->error; });
      if (entry->arrived && !entry->waited) {
        check(cudaStreamWaitEvent(state_->compute, event_of(entry->arrived), 0), "waiting for an upload");
      }
      state_->ahead -= State::bytes_of(entry->source);
    }
    state_->admit();
  }
  state_->changed.notify_all();
}

}  // namespace mxlm::cuda
