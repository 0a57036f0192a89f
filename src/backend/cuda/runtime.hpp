#pragma once

// CUDA's runtime with errors as exceptions and resources as values. Files for nvcc include no fmt, which it cannot
// compile as C++20: what formats sentences is in files for the host's compiler.

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>

#include "tensor/tensor.hpp"

namespace mxlm::cuda {

/// Throws OutOfDeviceMemory or Error ("The GPU reported ... while ...") unless the call succeeded.
void check(cudaError_t status, const char* doing);
/// After a kernel launch.
inline void check_launch(const char* doing) { check(cudaGetLastError(), doing); }

/// Throws Error if a token id is none of the vocabulary.
void check_targets(std::span<const int32_t> targets, int64_t vocabulary);

/// True if this program holds machine code for the current device (products.cu).
bool has_code_for_this_device();

/// A matrix in device memory as kernels take it: rows `stride` elements apart.
struct View {
  void* data = nullptr;
  DType type = DType::f32;
  int64_t rows = 0, cols = 0, stride = 0;
  template <typename T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data);
  }
};

inline View view(Tensor& t) { return {t.data(), t.dtype(), t.rows(), t.cols(), t.stride()}; }
/// Kernels that only read take the same type.
inline View view(const Tensor& t) { return {const_cast<void*>(t.data()), t.dtype(), t.rows(), t.cols(), t.stride()}; }
inline View view(Tensor* t) { return t == nullptr ? View{} : view(*t); }
inline View view(const Tensor* t) { return t == nullptr ? View{} : view(*t); }

/// Rows lie a multiple of this many elements apart, and operands are zero from their last column to there.
constexpr int64_t kRowStep = 64;
constexpr int64_t padded(int64_t cols) { return (cols + kRowStep - 1) / kRowStep * kRowStep; }

/// Weights have rows of zeros behind their last, so that products may take whole multiples of this many outputs: the
/// library is slow on others.
constexpr int64_t kRowSlack = 16;

/// Device memory for one backend, whose work is all on one stream: what was freed is used again by later work without
/// waiting.
class DeviceCache {
 public:
  explicit DeviceCache(uint64_t limit);
  ~DeviceCache();
  DeviceCache(const DeviceCache&) = delete;
  DeviceCache& operator=(const DeviceCache&) = delete;
  /// At least `bytes` (256-byte aligned), handed back when the last owner is gone. Throws OutOfDeviceMemory.
  std::shared_ptr<void> allocate(size_t bytes);
  [[nodiscard]] uint64_t used() const;
  [[nodiscard]] uint64_t peak() const;
  [[nodiscard]] uint64_t limit() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

struct StreamDeleter {
  void operator()(cudaStream_t s) const { cudaStreamDestroy(s); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDeleter>;
Stream make_stream();

/// A recorded event, as Mark::event holds it.
std::shared_ptr<void> record_event(cudaStream_t stream);
inline cudaEvent_t event_of(const std::shared_ptr<void>& event) { return static_cast<cudaEvent_t>(event.get()); }

}  // namespace mxlm::cuda
