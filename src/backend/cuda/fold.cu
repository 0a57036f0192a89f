#include "backend/cuda/fold.cuh"
#include "backend/cuda/fold.hpp"

namespace mxlm::cuda {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr unsigned kRecomputeBlocks = 264;

/// A warp an output, for every listed row. Few blocks, as most often there is nothing to do.
template <typename Out>
__global__ void __launch_bounds__(kThreads)
    recompute_kernel(const BFloat16* x, int64_t x_stride, const int32_t* rows, const uint8_t* codes,
                     int64_t code_stride, const float* scales, int64_t k, Out* out, int64_t out_stride,
                     int64_t first_row, int64_t out_rows, int64_t n, unsigned long long* total) {
  const int32_t count = rows[0];
  if (first_row == 0 && blockIdx.x == 0 && threadIdx.x == 0 && count > 0) {
    atomicAdd(total, static_cast<unsigned long long>(count));
  }
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t warps = int64_t{gridDim.x} * kWarps;
  for (int64_t task = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; task < count * n; task += warps) {
    const int64_t i = task / n, column = task - i * n;
    const int64_t row = rows[1 + i] - first_row;
    if (row < 0 || row >= out_rows) continue;
    const BFloat16* a = x + i * x_stride;
    const uint8_t* b = codes + column * code_stride;
    float sum = 0;
    // (Rows are padded with zeros to a multiple of two.)
    for (int64_t c = 2 * lane; c < k; c += 64) {
      const float2 w = fp8_values(false, *reinterpret_cast<const uint16_t*>(b + c));
      sum = fmaf(load(a[c]), w.x, sum);
      sum = fmaf(load(a[c + 1]), w.y, sum);
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (lane == 0) store(sum * scales[column], out[row * out_stride + column]);
  }
}

__global__ void unfold_kernel(const uint8_t* codes, int64_t code_stride, const float* scales, BFloat16* out,
                              int64_t out_stride) {
  const int64_t r = blockIdx.x;
  for (int64_t c = threadIdx.x; c < out_stride; c += kThreads) {
    store(fp8_values(false, codes[r * code_stride + c]).x * scales[r], out[r * out_stride + c]);
  }
}

}  // namespace

std::optional<DType> fold_type(const OperandSpec& spec, bool weight, int64_t cols) {
  if (!spec || !is_fast(*spec) || padded(cols) > kWidestFold) return std::nullopt;
  const mx::ElementFormat& e = spec->element;
  if (e.kind != mx::ElementKind::floating || e.exponent_bits > 5) return std::nullopt;
  // Two mantissa bits and exponents beyond E4M3's few are better off in E5M2.
  const bool wide = e.mantissa_bits <= 2 && e.exponent_bits >= 3;
  if (!weight && wide) return DType::f8_e5m2;
  if (e.mantissa_bits > 3 || e.exponent_bits > 4) return std::nullopt;
  return DType::f8_e4m3;
}

bool fold_rounds(const mx::Format& format) { return format.element.bits() == 8; }

void fold_weight(const mx::Format& format, const View& values, const View& codes, float* scales, int32_t* inexact,
                 cudaStream_t stream) {
  FoldTargets targets;
  targets.count = 1;
  targets.at[0].out = make_rows(codes.data, DType::u8, codes.stride, codes.stride);
  targets.at[0].row_scales = scales;
  set_format(targets.at[0], format, /*e5m2=*/false);
  targets.at[0].inexact_rows = inexact;
  if (values.type == DType::bf16) {
    launch_fold_rows(Source<BFloat16>{make_rows(values)}, values.rows, values.cols, targets, stream);
  } else if (values.type == DType::f16) {
    launch_fold_rows(Source<__half>{make_rows(values)}, values.rows, values.cols, targets, stream);
  } else {
    launch_fold_rows(Source<float>{make_rows(values)}, values.rows, values.cols, targets, stream);
  }
}

void unfold(const View& codes, const float* scales, const View& out, cudaStream_t stream) {
  if (out.rows == 0) return;
  unfold_kernel<<<static_cast<unsigned>(out.rows), kThreads, 0, stream>>>(codes.as<uint8_t>(), codes.stride, scales,
                                                                          out.as<BFloat16>(), out.stride);
  check_launch("unfolding a weight");
}

void recompute_rows(const View& x, const int32_t* rows, const View& codes, const float* scales, int64_t first_row,
                    const View& out, unsigned long long* total, cudaStream_t stream) {
  if (out.rows == 0 || out.cols == 0) return;
  const auto launch = [&](auto* to) {
    recompute_kernel<<<kRecomputeBlocks, kThreads, 0, stream>>>(x.as<BFloat16>(), x.stride, rows, codes.as<uint8_t>(),
                                                                codes.stride, scales, codes.cols, to, out.stride,
                                                                first_row, out.rows, out.cols, total);
  };
  out.type == DType::bf16 ? launch(out.as<BFloat16>()) : launch(out.as<float>());
  check_launch("recomputing rows");
}

}  // namespace mxlm::cuda
