#include "backend/cuda/generic.hpp"
#include "backend/cuda/operands.hpp"
#include "backend/cuda/weights.hpp"

namespace mxlm::cuda {
namespace {

/// Calls f with a null pointer of the type that a matrix holds.
template <typename F>
void with_source(DType type, const F& f) {
  assert(type == DType::f32 || type == DType::f16 || type == DType::bf16);
  if (type == DType::bf16) {
    f(static_cast<BFloat16*>(nullptr));
  } else if (type == DType::f16) {
    f(static_cast<__half*>(nullptr));
  } else {
    f(static_cast<float*>(nullptr));
  }
}

void write_matrix(const View& in, const Target& target, cudaStream_t stream) {
  Targets targets;
  targets.count = 1;
  targets.at[0] = target;
  with_source(in.type, [&](auto* pointer) {
    using In = std::remove_pointer_t<decltype(pointer)>;
    launch_write_rows(Source<In>{make_rows(in)}, in.rows, in.cols, targets, stream);
  });
}

// --- codes

/// The constants of codes of an element format of at most 8 bits.
struct Codes {
  bool integer;
  int bits, mantissa;
  float steps;             // subnormal (and integer) magnitudes times this are codes
  float smallest_normal;   // Inf for integers
  uint32_t exponent_bias;  // off the shifted bits of a normal magnitude
  float decode;            // 2^(emin + 126), integers: 2^-mantissa
};

Codes make_codes(const mx::ElementFormat& e) {
  const bool integer = e.kind == mx::ElementKind::integer;
  return {.integer = integer,
          .bits = e.bits(),
          .mantissa = e.mantissa_bits,
          .steps = mx::power_of_two(e.mantissa_bits - e.emin),
          .smallest_normal = integer ? mx::detail::float_of(mx::detail::kInfinity) : mx::power_of_two(e.emin),
          .exponent_bias = static_cast<uint32_t>(126 + e.emin) << e.mantissa_bits,
          .decode = mx::power_of_two(integer ? -e.mantissa_bits : e.emin + 126)};
}

/// mx::encode of a magnitude on the element's grid, and the sign of x.
__device__ uint32_t code_of(const Codes& codes, float magnitude, bool negative) {
  uint32_t code = magnitude < codes.smallest_normal
                      ? __float2uint_rn(magnitude * codes.steps)
                      : (__float_as_uint(magnitude) >> (23 - codes.mantissa)) - codes.exponent_bias;
  if (codes.integer) return (negative ? 0U - code : code) & ((1U << codes.bits) - 1);
  if (negative) code |= 1U << (codes.bits - 1);
  return code;
}

/// mx::decode of a code that encoding gives: its exponent field put where float32's is.
__device__ float value_of(const Codes& codes, uint32_t code) {
  const uint32_t sign = 1U << (codes.bits - 1);
  if (codes.integer) return static_cast<float>(static_cast<int>(code ^ sign) - static_cast<int>(sign)) * codes.decode;
  const float magnitude = __uint_as_float((code & (sign - 1)) << (23 - codes.mantissa)) * codes.decode;
  return (code & sign) != 0 ? -magnitude : magnitude;
}

/// Codes of a chunk of 8 take `bits` whole bytes, so threads write apart. `left`: bytes of the row from there on;
/// `aligned`: rows begin at multiples of what is stored at once.
__device__ void put_codes(uint8_t* to, uint64_t packed, int bits, int64_t left, bool aligned) {
  if (aligned && left >= bits) {
    if (bits == 8) {
      *reinterpret_cast<uint2*>(to) = make_uint2(static_cast<uint32_t>(packed), static_cast<uint32_t>(packed >> 32));
      return;
    }
    if (bits == 4) {
      *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(packed);
      return;
    }
  }
  for (int i = 0; i < bits && i < left; ++i) to[i] = static_cast<uint8_t>(packed >> (8 * i));
}

__device__ uint64_t get_codes(const uint8_t* from, int bits, int64_t left, bool aligned) {
  if (aligned && left >= bits) {
    if (bits == 8) {
      const uint2 words = *reinterpret_cast<const uint2*>(from);
      return words.x | static_cast<uint64_t>(words.y) << 32;
    }
    if (bits == 4) return *reinterpret_cast<const uint32_t*>(from);
  }
  uint64_t packed = 0;
  for (int i = 0; i < bits && i < left; ++i) packed |= static_cast<uint64_t>(from[i]) << (8 * i);
  return packed;
}

/// Where a matrix's codes and scales lie.
struct CodeRows {
  uint8_t* codes;
  uint8_t* scales;
  int64_t row_bytes, blocks, block;
  bool aligned;
};

CodeRows make_code_rows(const mx::Format& format, const void* codes, const void* scales, int64_t cols) {
  const int64_t row_bytes = mx::packed_bytes(format.element, cols);
  const int64_t step = format.element.bits() == 8 ? 8 : 4;
  // What is read only takes the same type.
  return {.codes = static_cast<uint8_t*>(const_cast<void*>(codes)),
          .scales = static_cast<uint8_t*>(const_cast<void*>(scales)),
          .row_bytes = row_bytes,
          .blocks = mx::block_count(format, cols),
          .block = format.block_size == 0 ? std::max<int64_t>(cols, 1) : format.block_size,
          .aligned = row_bytes % step == 0 && reinterpret_cast<uintptr_t>(codes) % 8 == 0};
}

/// Formats of the fast path: scales and codes in one pass.
template <typename In>
__global__ void __launch_bounds__(kThreads)
    encode_chunks(const __grid_constant__ Quantizer q, const __grid_constant__ Codes codes,
                  const __grid_constant__ Rows in, const __grid_constant__ CodeRows out, uint32_t first, uint32_t rows,
                  uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  const int64_t r = int64_t{first} + at.row;
  const bool inside = at.inside && at.col < in.cols;
  float x[kChunk] = {};
  if (inside) load_chunk<In>(in, r, at.col, x);
  const int e = block_exponent(q, largest_of(x));  // every lane takes part
  if (!inside) return;
  if (at.col % out.block == 0) out.scales[r * out.blocks + at.col / out.block] = mx::scale_code(e);
  uint64_t packed = 0;
  if (e != mx::kNanExponent) {
    const float inverse = power_of_two(-e);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const uint32_t code = code_of(codes, element_of(q, inverse, x[i]), (__float_as_uint(x[i]) >> 31) != 0);
      packed |= static_cast<uint64_t>(code) << (i * codes.bits);
    }
  }
  const int64_t byte = at.col / kChunk * codes.bits;
  put_codes(out.codes + r * out.row_bytes + byte, packed, codes.bits, out.row_bytes - byte, out.aligned);
}

/// Any other: codes by the definition, under scales that are there.
template <typename In>
__global__ void __launch_bounds__(kThreads)
    encode_generic(const __grid_constant__ mx::Format f, const __grid_constant__ Rows in,
                   const __grid_constant__ CodeRows out, uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float x[kChunk];
  load_chunk<In>(in, r, at.col, x);
  const int bits = f.element.bits();
  uint64_t packed = 0;
  for (int i = 0; i < kChunk && at.col + i < in.cols; ++i) {
    const uint8_t scale = out.scales[r * out.blocks + (at.col + i) / out.block];
    if (scale == mx::kNanScale) continue;
    const uint32_t code = mx::encode(f.element, f.rounding, scale - mx::kScaleBias, x[i]);
    packed |= static_cast<uint64_t>(code) << (i * bits);
  }
  const int64_t byte = at.col / kChunk * bits;
  put_codes(out.codes + r * out.row_bytes + byte, packed, bits, out.row_bytes - byte, out.aligned);
}

__global__ void __launch_bounds__(kThreads)
    decode_chunks(const __grid_constant__ Codes codes, const __grid_constant__ CodeRows in,
                  const __grid_constant__ Rows out, int64_t cols, uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float x[kChunk] = {};
  if (at.col < cols) {
    const int64_t byte = at.col / kChunk * codes.bits;
    const uint64_t packed = get_codes(in.codes + r * in.row_bytes + byte, codes.bits, in.row_bytes - byte, in.aligned);
    const uint32_t mask = (1U << codes.bits) - 1;
    const uint8_t* scales = in.scales + r * in.blocks;
    const bool one_block = in.block % kChunk == 0;
    const uint8_t shared = scales[at.col / in.block];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (at.col + i >= cols) continue;
      const uint8_t scale = one_block ? shared : scales[(at.col + i) / in.block];
      const float element = value_of(codes, static_cast<uint32_t>(packed >> (i * codes.bits)) & mask);
      x[i] = scale == mx::kNanScale ? __uint_as_float(mx::detail::kQuietNan)
                                    : element * power_of_two(scale - mx::kScaleBias);
    }
  }
  store_chunk<BFloat16>(out, r, at.col, x);
}

/// Three bfloat16 parts of each value, in thirds of a row of `part` columns.
template <typename In>
__global__ void __launch_bounds__(kThreads)
    split_chunks(const __grid_constant__ Rows in, const __grid_constant__ Rows out, int64_t part, bool smallest_first,
                 uint32_t first, uint32_t rows, uint32_t chunks) {
  const ChunkAt at = chunk_at(rows, chunks);
  if (!at.inside) return;
  const int64_t r = int64_t{first} + at.row;
  float x[kChunk] = {};
  if (at.col < in.cols) load_chunk<In>(in, r, at.col, x);
  float middle[kChunk];
  float small[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const float value = x[i];
    const bool finite = (__float_as_uint(value) & mx::detail::kMagnitude) < mx::detail::kInfinity;
    float large = bf(value);
    // The largest float32s would round to Inf.
    if (finite && isinf(large)) large = copysignf(__uint_as_float(0x7f7f0000U), value);
    const float rest = finite ? value - large : 0.0F;  // exact
    x[i] = large;
    middle[i] = bf(rest);
    small[i] = finite ? bf(rest - middle[i]) : 0.0F;
  }
  Rows third = out;
  third.cols = out.stride;
  third.vector = out.vector && part % kChunk == 0;
  BFloat16* row = third.row<BFloat16>(r) + at.col;
  const int64_t left = part - at.col;
  store_values(row + (smallest_first ? 2 * part : 0), left, third.vector, x);
  store_values(row + part, left, third.vector, middle);
  store_values(row + (smallest_first ? 0 : 2 * part), left, third.vector, small);
}

}  // namespace

void quantize_matrix(const mx::Format& format, const View& in, const View& out, float* row_scales, void* scratch,
                     cudaStream_t stream) {
  assert(in.rows == out.rows && in.cols == out.cols);
  if (in.rows == 0) return;
  if (is_fast(format)) return write_matrix(in, quantized_target(out, format), stream);
  if (!mx::has_row_scales(format)) return quantize_rows(format, in, out, out.stride, stream);
  ScaledRows args;
  args.row_scales = row_scales;
  if (format.scaling == mx::Scaling::tensor || format.scaling == mx::Scaling::nvfp4) {
    auto* amax = static_cast<uint32_t*>(scratch);
    check(cudaMemsetAsync(amax, 0, sizeof(uint32_t), stream), "clearing memory");
    window_amax(in, nullptr, amax, stream);
    args.amax = amax;
  }
  quantize_scaled_rows(format, in, out, out.stride, args, stream);
}

void convert_matrix(const View& in, const View& out, cudaStream_t stream) {
  assert(in.rows == out.rows && in.cols == out.cols);
  write_matrix(in, plain_target(out, out.stride), stream);
}

void encode_matrix(const mx::Format& format, const View& in, void* codes, void* scales, cudaStream_t stream) {
  assert(mx::keeps_codes(format) && format.scaling == mx::Scaling::block);
  const CodeRows out = make_code_rows(format, codes, scales, in.cols);
  const bool fast = is_fast(format);
  if (!fast) block_scale_codes(format, in, out.scales, stream);
  const Quantizer quantizer = fast ? make_quantizer(format) : Quantizer{};
  const int64_t step = quantizer.lanes;
  const int64_t chunks = ((in.cols + kChunk - 1) / kChunk + step - 1) / step * step;
  with_source(in.type, [&](auto* pointer) {
    using In = std::remove_pointer_t<decltype(pointer)>;
    for_parts(in.rows, chunks, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
      const auto per_row = static_cast<uint32_t>(chunks);
      if (fast) {
        encode_chunks<In><<<blocks, kThreads, 0, stream>>>(quantizer, make_codes(format.element), make_rows(in), out,
                                                           first, rows, per_row);
      } else {
        encode_generic<In><<<blocks, kThreads, 0, stream>>>(format, make_rows(in), out, first, rows, per_row);
      }
    });
  });
  check_launch("encoding a weight");
}

void decode_matrix(const mx::Format& format, const void* codes, const void* scales, const View& out,
                   cudaStream_t stream) {
  assert(mx::keeps_codes(format) && format.scaling == mx::Scaling::block && out.type == DType::bf16);
  const CodeRows in = make_code_rows(format, codes, scales, out.cols);
  const int64_t chunks = (out.stride + kChunk - 1) / kChunk;
  for_parts(out.rows, chunks, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
    decode_chunks<<<blocks, kThreads, 0, stream>>>(make_codes(format.element), in, make_padded_rows(out), out.cols,
                                                   first, rows, static_cast<uint32_t>(chunks));
  });
  check_launch("decoding a weight");
}

void split_matrix(const View& in, const View& out, int64_t part, bool smallest_first, cudaStream_t stream) {
  assert(out.type == DType::bf16 && out.stride >= 3 * part && part >= in.cols);
  const int64_t chunks = (part + kChunk - 1) / kChunk;
  with_source(in.type, [&](auto* pointer) {
    using In = std::remove_pointer_t<decltype(pointer)>;
    for_parts(in.rows, chunks, [&](uint32_t first, uint32_t rows, uint32_t blocks) {
      split_chunks<In><<<blocks, kThreads, 0, stream>>>(make_rows(in), make_rows(out), part, smallest_first, first,
                                                        rows, static_cast<uint32_t>(chunks));
    });
  });
  check_launch("splitting a matrix");
}

}  // namespace mxlm::cuda
