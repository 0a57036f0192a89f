#pragma once

// Bringing host matrices to the device beside its work: pinned double buffers, a stream of their own, and threads that
// read the pages (of a mapped checkpoint, perhaps from disk).

#include <cstdint>
#include <memory>

#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// Small host arrays on their way to the device through a ring of pinned memory, so that neither side waits.
class SmallUploads {
 public:
  SmallUploads();
  ~SmallUploads();
  SmallUploads(const SmallUploads&) = delete;
  SmallUploads& operator=(const SmallUploads&) = delete;
  /// Copies `bytes` to `to` in order with `stream`; `from` may be gone when it returns.
  void copy(void* to, const void* from, size_t bytes, cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Whole matrices. Rows arrive `stride` elements apart as they are in the host's memory, type unchanged.
class Staging {
 public:
  /// Memory comes from `memory`; `compute` is the stream that will read what arrived. Up to `budget` bytes are brought
  /// ahead of being asked for.
  Staging(DeviceCache& memory, cudaStream_t compute, int device, uint64_t budget);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Queues a matrix; the copy starts when its turn comes and the budget has room.
  void prefetch(const HostMatrix& source);
  /// The matrix on the device: what was brought already, or brought now. The compute stream waits for it; the caller
  /// does not. One that was announced stays for further calls until `forget`.
  struct Arrived {
    View view;  // rows packed: stride = cols, or padded(cols) for bf16 (zeros behind the last column)
    std::shared_ptr<void> memory;
  };
  Arrived get(const HostMatrix& source);
  void forget(const HostMatrix& source);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm::cuda
