// The operations of the CUDA backend that a mixture of experts needs beside products.

#include <cassert>
#include <vector>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/weights.hpp"
#include "backend/routing.hpp"

namespace mxlm {
namespace cuda {
namespace {

/// sum[rows[i]] += weights[i] y[i]; no row occurs twice.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    accumulate_chunks(const __grid_constant__ Rows y, const int32_t* rows, const float* weights,
                      const __grid_constant__ Rows sum, uint32_t first, uint32_t count, uint32_t chunks) {
  const ChunkAt at = chunk_at(count, chunks);
  if (!at.inside) return;
  const int64_t i = int64_t{first} + at.row;
  const float weight = weights[i];
  const int64_t r = rows[i];
  float x[kChunk];
  float s[kChunk];
  load_chunk<T>(y, i, at.col, x);
  load_chunk<float>(sum, r, at.col, s);
#pragma unroll
  for (int k = 0; k < kChunk; ++k) s[k] += weight * x[k];
  store_chunk<float>(sum, r, at.col, s);
}

}  // namespace
}  // namespace cuda

Routing CudaBackend::choose_experts(const Tensor& logits, const RoutingArgs& args) {
  assert(args.top_k >= 1 && args.top_k <= logits.cols());
  const auto experts = static_cast<size_t>(logits.cols());
  std::vector<float> values(static_cast<size_t>(logits.rows()) * experts);
  download(logits, values);
  Routing routing = empty_routing(logits.rows(), args);
  Router router(args, logits.dtype());
  for (int64_t r = 0; r < logits.rows(); ++r) {
    router.choose(std::span<const float>(values).subspan(static_cast<size_t>(r) * experts, experts), r, routing);
  }
  return routing;
}

void CudaBackend::accumulate(const Tensor& y, std::span<const int32_t> rows, std::span<const float> weights,
                             Tensor& sum) {
  assert(static_cast<int64_t>(rows.size()) == y.rows() && weights.size() == rows.size());
  assert(sum.dtype() == DType::f32 && sum.cols() == y.cols());
  if (rows.empty()) return;
  const auto which = to_device(rows);
  const auto factors = to_device(weights);
  const cuda::Rows from = cuda::make_rows(cuda::view(y));
  const cuda::Rows to = cuda::make_rows(cuda::view(sum));
  const int64_t chunks = (y.cols() + cuda::kChunk - 1) / cuda::kChunk;
  cuda::for_parts(y.rows(), chunks, [&](uint32_t first, uint32_t count, uint32_t blocks) {
    const auto per_row = static_cast<uint32_t>(chunks);
    if (y.dtype() == DType::bf16) {
      cuda::accumulate_chunks<BFloat16>
          <<<blocks, cuda::kThreads, 0, stream()>>>(from, which.get(), factors.get(), to, first, count, per_row);
    } else {
      cuda::accumulate_chunks<float>
          <<<blocks, cuda::kThreads, 0, stream()>>>(from, which.get(), factors.get(), to, first, count, per_row);
    }
  });
  cuda::check_launch("adding an expert's outputs");
}

}  // namespace mxlm
