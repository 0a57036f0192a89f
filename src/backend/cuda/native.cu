#include "backend/cuda/fold.cuh"
#include "backend/cuda/native.hpp"

namespace mxlm::cuda {
namespace {

/// FP8 codes and their scales as a kernel reaches them.
struct Scaled {
  uint8_t* codes;
  int64_t stride;
  uint8_t* scales;
  int64_t blocks;  // of a row
  bool e5m2;
};

Scaled make_scaled(const View& codes, const void* scales) {
  // What is read only takes the same type.
  return {codes.as<uint8_t>(), codes.stride, static_cast<uint8_t*>(const_cast<void*>(scales)),
          codes.cols / kScaledBlock, codes.type == DType::f8_e5m2};
}

/// A thread 8 values, 4 threads a block; `chunks` reach to the stride.
template <typename In>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const __grid_constant__ Quantizer q, const __grid_constant__ Rows in,
                  const __grid_constant__ Scaled out, uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  const int64_t r = int64_t{first} + at.row;
  const bool inside = at.inside && at.col < in.cols;
  float x[kChunk] = {};
  if (inside) load_chunk<In>(in, r, at.col, x);
  const int e = block_exponent(q, largest_of(x));  // every lane takes part
  if (!at.inside) return;
  const bool nan = e == mx::kNanExponent;
  const float inverse = power_of_two(nan ? 0 : -e);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) x[i] = nan ? 0.0F : copysignf(element_of(q, inverse, x[i]), x[i]);
  uint32_t words[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < kChunk; i += 2) words[i / 4] |= fp8_pair(out.e5m2, x[i], x[i + 1]) << (16 * (i / 2 % 2));
  *reinterpret_cast<uint2*>(out.codes + r * out.stride + at.col) = make_uint2(words[0], words[1]);
  if (inside && at.col % kScaledBlock == 0) {
    out.scales[scale_index(r, at.col / kScaledBlock, out.blocks)] = mx::scale_code(e);
  }
}

__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ Scaled in, const __grid_constant__ Rows out, int64_t cols, uint32_t first,
                  uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float x[kChunk] = {};
  if (at.col < cols) {
    const uint8_t scale = in.scales[scale_index(r, at.col / kScaledBlock, in.blocks)];
    const bool nan = scale == mx::kNanScale;
    const float factor = power_of_two(nan ? 0 : scale - mx::kScaleBias);
    const uint8_t* codes = in.codes + r * in.stride + at.col;
#pragma unroll
    for (int i = 0; i < kChunk; i += 2) {
      const float2 pair = fp8_values(in.e5m2, codes[i] | static_cast<uint32_t>(codes[i + 1]) << 8);
      x[i] = nan ? __uint_as_float(mx::detail::kQuietNan) : pair.x * factor;
      x[i + 1] = nan ? __uint_as_float(mx::detail::kQuietNan) : pair.y * factor;
    }
  }
  store_chunk<BFloat16>(out, r, at.col, x);
}

/// True if numbers of `mantissa` explicit bits, up to `max` and down to steps of 2^smallest, include all elements.
bool holds(const mx::ElementFormat& e, int mantissa, float max, int smallest) {
  return e.mantissa_bits <= mantissa && e.max <= max && e.emin - e.mantissa_bits >= smallest;
}

}  // namespace

std::optional<DType> native_type(const OperandSpec& spec, bool weight, int64_t cols) {
  if (!spec || !is_fast(*spec) || spec->block_size != kScaledBlock || cols % kScaledBlock != 0) return std::nullopt;
  const mx::ElementFormat& e = spec->element;
  if (e.kind != mx::ElementKind::floating) return std::nullopt;
  if (holds(e, 3, 448, -9)) return DType::f8_e4m3;
  if (!weight && holds(e, 2, 57344, -16)) return DType::f8_e5m2;
  return std::nullopt;
}

void encode_native(const mx::Format& format, const View& values, const View& codes, void* scales, cudaStream_t stream) {
  assert(values.rows == codes.rows && values.cols == codes.cols && codes.stride % kScaledBlock == 0);
  assert(native_type(format, /*weight=*/false, values.cols) == codes.type);
  const Scaled out = make_scaled(codes, scales);
  const auto bytes = static_cast<size_t>(scale_bytes(codes.rows, out.blocks));
  check(cudaMemsetAsync(scales, 0, bytes, stream), "clearing memory");
  const int64_t chunks = codes.stride / kChunk;
  for_parts(values.rows, chunks, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
    const auto launch = [&](auto kernel) {
      kernel<<<blocks, kThreads, 0, stream>>>(make_quantizer(format), make_rows(values), out, first, rows,
                                              static_cast<uint32_t>(chunks));
    };
    if (values.type == DType::bf16) {
      launch(encode_kernel<BFloat16>);
    } else if (values.type == DType::f16) {
      launch(encode_kernel<__half>);
    } else {
      launch(encode_kernel<float>);
    }
  });
  check_launch("quantising in block-scaled form");
}

void decode_native(const View& codes, const void* scales, const View& out, cudaStream_t stream) {
  assert(out.type == DType::bf16 && out.rows == codes.rows && out.cols == codes.cols);
  const int64_t chunks = (out.stride + kChunk - 1) / kChunk;
  for_parts(out.rows, chunks, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
    decode_kernel<<<blocks, kThreads, 0, stream>>>(make_scaled(codes, scales), make_padded_rows(out), out.cols, first,
                                                   rows, static_cast<uint32_t>(chunks));
  });
  check_launch("decoding a block-scaled weight");
}

}  // namespace mxlm::cuda
