#pragma once

// Scaled dot-product attention by cuDNN, where it applies.

#include <cstdint>
#include <memory>

#include "backend/backend.hpp"
#include "backend/cuda/runtime.hpp"

namespace mxlm::cuda {

/// Causal attention of `windows` windows of `length` tokens each, one after the other in packed rows, bfloat16.
struct SdpaProblem {
  int64_t windows = 0, length = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  int64_t q_row = 0, q_head = 0, k_row = 0, k_head = 0, v_row = 0, v_head = 0, out_row = 0;  // strides, elements
  float scale = 1;
  int64_t sliding_window = 0;  // as AttentionArgs
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* out = nullptr;  // [windows * length, heads * head_dim], heads packed
};

class Sdpa {
 public:
  explicit Sdpa(cudaStream_t stream);
  ~Sdpa();
  Sdpa(const Sdpa&) = delete;
  Sdpa& operator=(const Sdpa&) = delete;
  /// False where cuDNN has nothing for such a problem (or is not here): alignment, head_dim, a build without it.
  [[nodiscard]] bool supports(const SdpaProblem& problem);
  /// Runs it on the stream; `allocate` gives workspace. Plans are made once for a shape and kept.
  void run(const SdpaProblem& problem, DeviceCache& memory);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mxlm::cuda
