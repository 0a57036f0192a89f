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

/// A product with random operands; FP8 with a float32 scale a row, or BF16.
struct Product {
  Product(const GemmShape& s, std::optional<Fp8Sums> fp8)
      : shape(s),
        a(fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF, s.k, s.n),
        b(fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF, s.k, s.m),
        c(CUDA_R_16BF, s.n, s.m),
        w(bytes(s.n, s.k, fp8 ? 1 : 2)),
        x(bytes(s.m, s.k, fp8 ? 1 : 2)),
        out(bytes(s.m, s.n, 2)),
        w_scales(bytes(s.n, 1, sizeof(float))),
        x_scales(bytes(s.m, 1, sizeof(float))) {
    const auto& block = fp8 ? fp8_block() : bf16_block();
    fill(w.data, bytes(s.n, s.k, fp8 ? 1 : 2), block);
    fill(x.data, bytes(s.m, s.k, fp8 ? 1 : 2), block);
    if (!fp8) return;
    const std::vector<float> scales(static_cast<size_t>(std::max(s.n, s.m)), 0.125F);
    check(cudaMemcpy(w_scales.data, scales.data(), bytes(s.n, 1, sizeof(float)), cudaMemcpyHostToDevice), "filling");
    check(cudaMemcpy(x_scales.data, scales.data(), bytes(s.m, 1, sizeof(float)), cudaMemcpyHostToDevice), "filling");
    matmul.set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    matmul.set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    matmul.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(w_scales.data));
    matmul.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(x_scales.data));
    matmul.set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(*fp8 == Fp8Sums::fast ? 1 : 0));
  }
  static size_t bytes(int64_t rows, int64_t cols, size_t element) { return static_cast<size_t>(rows * cols) * element; }

  GemmShape shape;
  // Row-major out [m, n] is column-major [n, m] = (w [k, n])^T x [k, m].
  Layout a, b, c;
  DeviceMemory w, x, out, w_scales, x_scales;
  Matmul matmul;
  cublasLtMatmulAlgo_t algorithm{};
};

/// cuDNN's attention with random operands.
class Attention {
 public:
  Attention(const SdpaShape& s, cudaStream_t stream)
      : q_(bytes(s, s.heads)),
        k_(bytes(s, s.kv_heads)),
        v_(bytes(s, s.kv_heads)),
        out_(bytes(s, s.heads)),
        sdpa_(stream) {
    fill(q_.data, bytes(s, s.heads), bf16_block());
    fill(k_.data, bytes(s, s.kv_heads), bf16_block());
    fill(v_.data, bytes(s, s.kv_heads), bf16_block());
    const int64_t q_width = int64_t{s.heads} * s.head_dim, kv_width = int64_t{s.kv_heads} * s.head_dim;
    problem_ = {.windows = s.windows,
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
                .sliding_window = 0,
                .q = q_.data,
                .k = k_.data,
                .v = v_.data,
                .out = out_.data};
  }
  bool supported() { return sdpa_.supports(problem_); }
  void run() { sdpa_.run(problem_, memory_); }

 private:
  static size_t bytes(const SdpaShape& s, int heads) {
    return static_cast<size_t>(s.windows * s.length * heads * s.head_dim) * 2;
  }
  DeviceMemory q_, k_, v_, out_;
  cuda::DeviceCache memory_{uint64_t{4} << 30};
  cuda::Sdpa sdpa_;
  cuda::SdpaProblem problem_;
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

  void multiply(const Product& p, const cublasLtMatmulAlgo_t& algorithm) {
    check_blas(try_multiply(p, algorithm), "multiplying");
  }
  cublasStatus_t try_multiply(const Product& p, const cublasLtMatmulAlgo_t& algorithm) {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, p.matmul.desc, &one, p.w.data, p.a.layout, p.x.data, p.b.layout, &zero, p.out.data,
                          p.c.layout, p.out.data, p.c.layout, &algorithm, workspace.data, kWorkspace, stream.get());
  }

  /// Finds the fastest of the algorithms proposed for a product; its seconds, nullopt if there are none.
  std::optional<double> choose(Product& p) {
    const Preference preference;
    cublasLtMatmulHeuristicResult_t proposals[kProposals];
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, p.matmul.desc, p.a.layout, p.b.layout, p.c.layout, p.c.layout,
                                       preference.preference, kProposals, proposals, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) return std::nullopt;
    // About ten milliseconds a group.
    const int calls = std::clamp(static_cast<int>(6e12 / p.shape.flops()), 1, 50);
    double best = std::numeric_limits<double>::infinity();
    bool found = false;
    for (int i = 0; i < count; ++i) {
      if (try_multiply(p, proposals[i].algo) != CUBLAS_STATUS_SUCCESS) continue;
      const double seconds = time(2, calls, [&] { multiply(p, proposals[i].algo); });
      if (seconds < best) {
        best = seconds;
        p.algorithm = proposals[i].algo;
        found = true;
      }
    }
    if (!found) return std::nullopt;
    return std::min(best, time(5, calls, [&] { multiply(p, p.algorithm); }));
  }
};

GpuLimits::GpuLimits() : state_(std::make_unique<State>()) {}
GpuLimits::~GpuLimits() = default;

double GpuLimits::bf16_gemm(const GemmShape& shape) {
  Product product(shape, std::nullopt);
  const auto seconds = state_->choose(product);
  if (!seconds) fail("cuBLASLt has no BF16 product of {} x {} x {}.", shape.m, shape.n, shape.k);
  return *seconds;
}

std::optional<double> GpuLimits::fp8_gemm(const GemmShape& shape, Fp8Sums sums) {
  Product product(shape, sums);
  return state_->choose(product);
}

std::optional<double> GpuLimits::sdpa(const SdpaShape& shape) {
  Attention attention(shape, state_->stream.get());
  if (!attention.supported()) return std::nullopt;
  for (int i = 0; i < 3; ++i) attention.run();
  return state_->time(5, 20, [&] { attention.run(); });
}

std::optional<double> GpuLimits::forward(const ForwardShape& shape, std::optional<Fp8Sums> sums) {
  std::vector<std::unique_ptr<Product>> products;
  products.reserve(shape.layer.size() + 1);
  for (const GemmShape& gemm : shape.layer) products.push_back(std::make_unique<Product>(gemm, sums));
  products.push_back(std::make_unique<Product>(shape.head, std::nullopt));
  for (const auto& product : products) {
    if (!state_->choose(*product)) return std::nullopt;
  }
  Attention attention(shape.attention, state_->stream.get());
  if (!attention.supported()) return std::nullopt;
  const auto all = [&] {
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (size_t i = 0; i + 1 < products.size(); ++i) state_->multiply(*products[i], products[i]->algorithm);
      attention.run();
    }
    state_->multiply(*products.back(), products.back()->algorithm);
  };
  all();
  all();
  return state_->time(5, 1, all);
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
