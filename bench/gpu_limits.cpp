#include "gpu_limits.hpp"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "backend/cuda/runtime.hpp"
#include "backend/cuda/sdpa.hpp"
#include "base/error.hpp"

namespace mxlm::bench {
namespace {

using cuda::check;

constexpr size_t kWorkspace = size_t{64} << 20;
constexpr int kProposals = 8;

void check_blas(cublasStatus_t status, const char* doing) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    fail("cuBLASLt reported {} while {}.", cublasLtGetStatusString(status), doing);
  }
}

struct DeviceMemory {
  void* data = nullptr;
  explicit DeviceMemory(size_t bytes) { check(cudaMalloc(&data, bytes), "allocating for a limit"); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data); }
};

/// Fills device memory with copies of a block of random bytes, whose length shares no factor with that of a row.
void fill(void* to, size_t bytes, const std::vector<std::byte>& block) {
  for (size_t at = 0; at < bytes; at += block.size()) {
    const size_t count = std::min(block.size(), bytes - at);
    check(cudaMemcpy(static_cast<std::byte*>(to) + at, block.data(), count, cudaMemcpyHostToDevice),
          "filling the operands of a limit");
  }
}

template <typename Value>
std::vector<std::byte> random_block(size_t count, Value value) {
  std::mt19937 generator(3);
  using T = decltype(value(generator));
  std::vector<std::byte> out(count * sizeof(T));
  for (size_t i = 0; i < count; ++i) reinterpret_cast<T*>(out.data())[i] = value(generator);
  return out;
}

constexpr size_t kBlock = 4194301;

const std::vector<std::byte>& bf16_block() {
  static const std::vector<std::byte> block = random_block(kBlock, [](std::mt19937& generator) {
    static std::normal_distribution<float> normal;
    return to_bfloat16(normal(generator)).bits;
  });
  return block;
}

/// Finite E4M3 codes between 2^-4 and 2^3, of both signs.
const std::vector<std::byte>& fp8_block() {
  static const std::vector<std::byte> block = random_block(kBlock, [](std::mt19937& generator) {
    const auto bits = static_cast<uint32_t>(generator());
    return static_cast<uint8_t>(((bits & 1U) << 7) | (0x18U + (bits >> 8) % 0x38U));
  });
  return block;
}

struct Layout {
  cublasLtMatrixLayout_t layout = nullptr;
  Layout(cudaDataType type, int64_t rows, int64_t cols) {
    check_blas(
        cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), rows),
        "describing a matrix");
  }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  ~Layout() { cublasLtMatrixLayoutDestroy(layout); }
};

struct Matmul {
  cublasLtMatmulDesc_t desc = nullptr;
  Matmul() {
    check_blas(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  }
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;
  ~Matmul() { cublasLtMatmulDescDestroy(desc); }
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    check_blas(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value), "describing a product");
  }
};

struct Preference {
  cublasLtMatmulPreference_t preference = nullptr;
  Preference() {
    check_blas(cublasLtMatmulPreferenceCreate(&preference), "asking for algorithms");
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                                    sizeof kWorkspace),
               "asking for algorithms");
  }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;
  ~Preference() { cublasLtMatmulPreferenceDestroy(preference); }
};

}  // namespace

struct GpuLimits::State {
  cublasLtHandle_t handle = nullptr;
  cuda::Stream stream = cuda::make_stream();
  cudaEvent_t begin = nullptr, end = nullptr;
  DeviceMemory workspace{kWorkspace};

  State() {
    check_blas(cublasLtCreate(&handle), "starting");
    check(cudaEventCreate(&begin), "making an event");
    check(cudaEventCreate(&end), "making an event");
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cublasLtDestroy(handle);
  }

  /// Seconds of one of `calls` calls in a row, the best of `groups`.
  double time(int groups, int calls, const std::function<void()>& call) {
    double best = std::numeric_limits<double>::infinity();
    for (int g = 0; g < groups; ++g) {
      check(cudaEventRecord(begin, stream.get()), "timing");
      for (int c = 0; c < calls; ++c) call();
      check(cudaEventRecord(end, stream.get()), "timing");
      check(cudaEventSynchronize(end), "timing");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin, end), "timing");
      best = std::min(best, 1e-3 * static_cast<double>(milliseconds) / calls);
    }
    return best;
  }

  /// The fastest of the algorithms proposed for a product whose types `matmul` says the rest of; nullopt if there are
  /// none.
  std::optional<double> fastest(Matmul& matmul, const GemmShape& s, cudaDataType in, const void* w, const void* x,
                                void* out) {
    // Row-major out [m, n] is column-major [n, m] = (w [k, n])^T x [k, m].
    const Layout a(in, s.k, s.n), b(in, s.k, s.m), c(CUDA_R_16BF, s.n, s.m);
    const Preference preference;
    cublasLtMatmulHeuristicResult_t proposals[kProposals];
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, matmul.desc, a.layout, b.layout, c.layout, c.layout,
                                       preference.preference, kProposals, proposals, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) return std::nullopt;
    const float one = 1, zero = 0;
    const auto call = [&](const cublasLtMatmulAlgo_t& algorithm) {
      return cublasLtMatmul(handle, matmul.desc, &one, w, a.layout, x, b.layout, &zero, out, c.layout, out, c.layout,
                            &algorithm, workspace.data, kWorkspace, stream.get());
    };
    // About ten milliseconds a group.
    const int calls = std::clamp(static_cast<int>(6e12 / s.flops()), 1, 50);
    double best = std::numeric_limits<double>::infinity();
    int chosen = -1;
    for (int p = 0; p < count; ++p) {
      if (call(proposals[p].algo) != CUBLAS_STATUS_SUCCESS) continue;
      const double seconds = time(2, calls, [&] { check_blas(call(proposals[p].algo), "multiplying"); });
      if (seconds < best) {
        best = seconds;
        chosen = p;
      }
    }
    if (chosen < 0) return std::nullopt;
    return std::min(best, time(5, calls, [&] { check_blas(call(proposals[chosen].algo), "multiplying"); }));
  }
};

GpuLimits::GpuLimits() : state_(std::make_unique<State>()) {}
GpuLimits::~GpuLimits() = default;

double GpuLimits::bf16_gemm(const GemmShape& shape) {
  const auto bytes = [](int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols) * 2; };
  const DeviceMemory w(bytes(shape.n, shape.k)), x(bytes(shape.m, shape.k)), out(bytes(shape.m, shape.n));
  fill(w.data, bytes(shape.n, shape.k), bf16_block());
  fill(x.data, bytes(shape.m, shape.k), bf16_block());
  Matmul matmul;
  const auto seconds = state_->fastest(matmul, shape, CUDA_R_16BF, w.data, x.data, out.data);
  if (!seconds) fail("cuBLASLt has no BF16 product of {} x {} x {}.", shape.m, shape.n, shape.k);
  return *seconds;
}

std::optional<double> GpuLimits::fp8_gemm(const GemmShape& shape, Fp8Sums sums) {
  const auto bytes = [](int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols); };
  const DeviceMemory w(bytes(shape.n, shape.k)), x(bytes(shape.m, shape.k)), out(2 * bytes(shape.m, shape.n));
  const DeviceMemory w_scales(bytes(shape.n, sizeof(float))), x_scales(bytes(shape.m, sizeof(float)));
  fill(w.data, bytes(shape.n, shape.k), fp8_block());
  fill(x.data, bytes(shape.m, shape.k), fp8_block());
  const std::vector<float> scales(static_cast<size_t>(std::max(shape.n, shape.m)), 0.125F);
  check(cudaMemcpy(w_scales.data, scales.data(), bytes(shape.n, sizeof(float)), cudaMemcpyHostToDevice), "filling");
  check(cudaMemcpy(x_scales.data, scales.data(), bytes(shape.m, sizeof(float)), cudaMemcpyHostToDevice), "filling");
  Matmul matmul;
  matmul.set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
  matmul.set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
  matmul.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(w_scales.data));
  matmul.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(x_scales.data));
  matmul.set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(sums == Fp8Sums::fast ? 1 : 0));
  return state_->fastest(matmul, shape, CUDA_R_8F_E4M3, w.data, x.data, out.data);
}

std::optional<double> GpuLimits::sdpa(const SdpaShape& s) {
  const int64_t rows = s.windows * s.length;
  const int64_t q_width = int64_t{s.heads} * s.head_dim, kv_width = int64_t{s.kv_heads} * s.head_dim;
  const auto bytes = [&](int64_t width) { return static_cast<size_t>(rows * width) * 2; };
  const DeviceMemory q(bytes(q_width)), k(bytes(kv_width)), v(bytes(kv_width)), out(bytes(q_width));
  fill(q.data, bytes(q_width), bf16_block());
  fill(k.data, bytes(kv_width), bf16_block());
  fill(v.data, bytes(kv_width), bf16_block());
  const cuda::SdpaProblem problem{.windows = s.windows,
                                  .length = s.length,
                                  .heads = s.heads,
                                  .kv_heads = s.kv_heads,
                                  .head_dim = s.head_dim,
                                  .q_row = q_width,
                                  .q_head = s.head_dim,
                                  .k_row = kv_width,
                                  .k_head = s.head_dim,
                                  .v_row = kv_width,
                                  .v_head = s.head_dim,
                                  .out_row = q_width,
                                  .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim))),
                                  .q = q.data,
                                  .k = k.data,
                                  .v = v.data,
                                  .out = out.data};
  cuda::DeviceCache memory(uint64_t{4} << 30);
  cuda::Sdpa sdpa(state_->stream.get());
  if (!sdpa.supports(problem)) return std::nullopt;
  for (int i = 0; i < 3; ++i) sdpa.run(problem, memory);
  const double seconds = state_->time(5, 20, [&] { sdpa.run(problem, memory); });
  return seconds;
}

double GpuLimits::copy_bandwidth() {
  constexpr size_t kBytes = size_t{1} << 30;
  const DeviceMemory from(kBytes), to(kBytes);
  fill(from.data, kBytes, bf16_block());
  const double seconds = state_->time(5, 10, [&] {
    check(cudaMemcpyAsync(to.data, from.data, kBytes, cudaMemcpyDeviceToDevice, state_->stream.get()), "copying");
  });
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

}  // namespace mxlm::bench
