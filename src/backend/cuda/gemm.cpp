#include "backend/cuda/gemm.hpp"

#include <cublasLt.h>

#include <array>
#include <map>
#include <tuple>
#include <vector>

#include "base/error.hpp"

namespace mxlm::cuda {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;
// Rows that an algorithm is chosen for; it then serves any number of them.
constexpr int64_t kTypicalRows = 8192;
constexpr int kCandidates = 16;
constexpr int64_t kRowsWorthTiming = 1024;
constexpr int kTimed = 3;

void check(cublasStatus_t status, const char* doing) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail("cuBLASLt reported '{}' while {}; if it repeats, run with --device cpu.", cublasLtGetStatusString(status),
       doing);
}

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    case DType::f8_e4m3:
      return CUDA_R_8F_E4M3;
    case DType::f8_e5m2:
      return CUDA_R_8F_E5M2;
    default:
      return CUDA_R_32F;
  }
}

template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle h) const { kDestroy(h); }
};
using Operation = std::unique_ptr<void, Destroy<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using MatrixLayout = std::unique_ptr<void, Destroy<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Preference = std::unique_ptr<void, Destroy<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

MatrixLayout make_layout(DType type, int64_t rows, int64_t cols, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, cuda_type(type), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                                   stride),
        "describing a matrix");
  return MatrixLayout(layout);
}

template <typename T>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(operation.get(), attribute, &value, sizeof value), "describing a product");
}

/// What an algorithm is chosen for; the number of rows is none of it.
using Key = std::tuple<int64_t, int64_t, DType, DType, DType, ScaleMode, bool, bool, bool, bool, bool>;

/// True if every row starts at a multiple of 16 bytes.
bool aligned(const void* data, int64_t stride, DType type) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(dtype_size(type)) % 16 == 0;
}

uint32_t alignment(bool aligned16, DType type) { return aligned16 ? 16 : static_cast<uint32_t>(dtype_size(type)); }

}  // namespace

struct Gemm::State {
  explicit State(DeviceCache& cache) : memory(cache) {
    check(cublasLtCreate(&handle), "starting");
    cuda::check(cudaMalloc(&workspace, kWorkspace), "the workspace of matrix products");
  }
  ~State() {
    cudaFree(workspace);
    cublasLtDestroy(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// In cuBLAS's words, out^T [N, M] = w^T^T x^T: column-major matrices whose columns are our rows.
  static Operation make_operation(const Product& p) {
    cublasLtMatmulDesc_t raw = nullptr;
    check(cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
    Operation operation(raw);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
    if (p.bias != nullptr) {
      set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
      set(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(p.out_type));
    }
    if (p.scale_mode != ScaleMode::none) {
      const auto mode = p.scale_mode == ScaleMode::rows ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                                        : CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
      set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
      set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
      set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.w_scales);
      set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.x_scales);
      set(operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(0));
    }
    return operation;
  }

  struct Layouts {
    MatrixLayout w, x, out;
  };
  static Layouts make_layouts(const Product& p, int64_t rows) {
    return {make_layout(p.w_type, p.k, p.n, p.w_stride), make_layout(p.x_type, p.k, rows, p.x_stride),
            make_layout(p.out_type, p.n, rows, p.out_stride)};
  }

  /// The library's proposals that split no sum and can do one row as well as many, best first by its heuristics.
  std::vector<cublasLtMatmulAlgo_t> propose(const Product& p, const Operation& operation) {
    cublasLtMatmulPreference_t raw = nullptr;
    check(cublasLtMatmulPreferenceCreate(&raw), "choosing an algorithm");
    const Preference preference(raw);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check(cublasLtMatmulPreferenceSetAttribute(raw, attribute, &value, sizeof value), "choosing an algorithm");
    };
    const bool aligned_w = aligned(p.w, p.w_stride, p.w_type), aligned_x = aligned(p.x, p.x_stride, p.x_type),
               aligned_out = aligned(p.out, p.out_stride, p.out_type);
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspace});
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(aligned_w, p.w_type));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(aligned_x, p.x_type));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(aligned_out, p.out_type));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(aligned_out, p.out_type));

    const Layouts typical = make_layouts(p, kTypicalRows);
    const Layouts single = make_layouts(p, 1);
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle, operation.get(), typical.w.get(), typical.x.get(), typical.out.get(),
                                         typical.out.get(), preference.get(), kCandidates, found.data(), &count),
          "choosing an algorithm");
    std::vector<cublasLtMatmulAlgo_t> usable;
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulHeuristicResult_t& candidate = found[static_cast<size_t>(i)];
      if (candidate.state != CUBLAS_STATUS_SUCCESS) continue;
      int32_t splits = 1;
      size_t written = 0;
      if (cublasLtMatmulAlgoConfigGetAttribute(&candidate.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits,
                                               &written) == CUBLAS_STATUS_SUCCESS &&
          splits > 1) {
        continue;
      }
      cublasLtMatmulHeuristicResult_t checked{};
      if (cublasLtMatmulAlgoCheck(handle, operation.get(), single.w.get(), single.x.get(), single.out.get(),
                                  single.out.get(), &candidate.algo, &checked) != CUBLAS_STATUS_SUCCESS ||
          checked.workspaceSize > kWorkspace) {
        continue;
      }
      usable.push_back(candidate.algo);
    }
    if (!usable.empty()) return usable;
    fail("cuBLASLt has no algorithm for a product of {} outputs and {} inputs; run with {}.", p.n, p.k,
         p.scale_mode == ScaleMode::none ? "--device cpu" : "--gemm exact");
  }

  void multiply(const Product& p, const Operation& operation, const Layouts& layouts,
                const cublasLtMatmulAlgo_t& algorithm, void* out, cudaStream_t stream) {
    const float one = 1, beta = p.add ? 1.0F : 0.0F;
    check(cublasLtMatmul(handle, operation.get(), &one, p.w, layouts.w.get(), p.x, layouts.x.get(), &beta, out,
                         layouts.out.get(), out, layouts.out.get(), &algorithm, workspace, kWorkspace, stream),
          "computing a product");
  }

  /// Seconds of a few products, the first of them not counted.
  double time(const Product& p, const Operation& operation, const Layouts& layouts,
              const cublasLtMatmulAlgo_t& algorithm, void* out, cudaStream_t stream) {
    multiply(p, operation, layouts, algorithm, out, stream);
    const auto start = record_event(stream);
    for (int i = 0; i < kTimed; ++i) multiply(p, operation, layouts, algorithm, out, stream);
    const auto end = record_event(stream);
    cuda::check(cudaEventSynchronize(event_of(end)), "timing products");
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, event_of(start), event_of(end)), "timing products");
    return milliseconds;
  }

  /// The fastest of the proposals whose product has the bits of the first one's.
  cublasLtMatmulAlgo_t fastest(const Product& p, const Operation& operation, const Layouts& layouts,
                               const std::vector<cublasLtMatmulAlgo_t>& proposals, cudaStream_t stream) {
    const size_t bytes = static_cast<size_t>(p.m * p.out_stride) * dtype_size(p.out_type);
    const auto first = memory.allocate(bytes), other = memory.allocate(bytes),
               counter = memory.allocate(sizeof(int32_t));
    const auto matrix = [&](const std::shared_ptr<void>& data) {
      return View{.data = data.get(), .type = p.out_type, .rows = p.m, .cols = p.n, .stride = p.out_stride};
    };
    size_t best = 0;
    double least = time(p, operation, layouts, proposals[0], first.get(), stream);
    for (size_t i = 1; i < proposals.size(); ++i) {
      multiply(p, operation, layouts, proposals[i], other.get(), stream);
      if (!same_bits(matrix(first), matrix(other), static_cast<int32_t*>(counter.get()), stream)) continue;
      const double took = time(p, operation, layouts, proposals[i], other.get(), stream);
      if (took < least) {
        least = took;
        best = i;
      }
    }
    return proposals[best];
  }

  /// What is known of a kind of product.
  struct Choice {
    std::vector<cublasLtMatmulAlgo_t> proposals;
    cublasLtMatmulAlgo_t algorithm{};
    bool timed = false;
  };

  DeviceCache& memory;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::map<Key, Choice> choices;
};

Gemm::Gemm(DeviceCache& memory) : state_(std::make_unique<State>(memory)) {}
Gemm::~Gemm() = default;

void Gemm::run(const Product& p, cudaStream_t stream) {
  if (p.m == 0 || p.n == 0) return;
  const Operation operation = State::make_operation(p);
  const Key key{p.n,
                p.k,
                p.x_type,
                p.w_type,
                p.out_type,
                p.scale_mode,
                p.bias != nullptr,
                p.add,
                aligned(p.x, p.x_stride, p.x_type),
                aligned(p.w, p.w_stride, p.w_type),
                aligned(p.out, p.out_stride, p.out_type)};
  auto found = state_->choices.find(key);
  if (found == state_->choices.end()) {
    State::Choice choice{.proposals = state_->propose(p, operation), .algorithm = {}, .timed = false};
    choice.algorithm = choice.proposals.front();
    found = state_->choices.emplace(key, std::move(choice)).first;
  }
  State::Choice& choice = found->second;
  const State::Layouts layouts = State::make_layouts(p, p.m);
  if (!choice.timed && !p.add && p.m >= kRowsWorthTiming && choice.proposals.size() > 1) {
    choice.timed = true;
    try {
      choice.algorithm = state_->fastest(p, operation, layouts, choice.proposals, stream);
    } catch (const OutOfDeviceMemory&) {
      // The first proposal serves.
    }
  }
  state_->multiply(p, operation, layouts, choice.algorithm, p.out, stream);
}

}  // namespace mxlm::cuda
