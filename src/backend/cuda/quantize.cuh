#pragma once

// Quantising in device code, to the bits of mx/quantize.hpp. A thread holds 8 consecutive values of a row. Block
// formats of the usual kind (round to even, every rule but mse, blocks of 8, 16, 32, ... 256) take the fast path here:
// about 8 operations a value. The others are computed with the definition itself (generic.cu).

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "mx/quantize.hpp"
#include "tensor/dtype.hpp"

namespace mxlm::cuda {

/// Values of a row that a thread holds.
constexpr int kChunk = 8;
constexpr unsigned kAllLanes = 0xffffffffU;

/// The constants of a format of the fast path. Rounding |x| 2^-e to the element's grid is adding and subtracting a
/// power of two, `mantissa` places above the value's own exponent or that of the smallest normal number.
struct Quantizer {
  uint32_t exponent_mask = 0;  // of the value whose exponent counts; integers have one quantum, so 0
  uint32_t smallest = 0;       // 2^emin, as bits
  uint32_t magic_step = 0;     // (23 - mantissa_bits) << 23
  float max = 0;
  float zero = 0;           // added in the end: -0 keeps the sign of a zero, +0 makes zeros positive (integers)
  uint32_t round_amax = 0;  // added to the largest magnitude before its exponent is taken: the rule
  int32_t emax = 0;
  int32_t limit = 0;  // largest scale exponent
  int32_t lanes = 1;  // threads that share a block: block_size / 8
};

/// True if `f` is a format of the fast path.
inline bool is_fast(const mx::Format& f) {
  const int block = f.block_size;
  return f.scaling == mx::Scaling::block && f.rounding == mx::Rounding::even && f.rule != mx::ScaleRule::mse &&
         f.scale_bits <= 8 && block >= 8 && block <= 256 && (block & (block - 1)) == 0;
}

inline Quantizer make_quantizer(const mx::Format& f) {
  const mx::ElementFormat& e = f.element;
  const bool integer = e.kind == mx::ElementKind::integer;
  constexpr uint32_t kOne = 1U << 23;
  Quantizer q;
  q.exponent_mask = integer ? 0 : mx::detail::kInfinity;
  q.smallest = static_cast<uint32_t>(e.emin + 127) << 23;
  q.magic_step = static_cast<uint32_t>(23 - e.mantissa_bits) << 23;
  q.max = e.max;
  q.zero = integer ? 0.0F : -0.0F;
  switch (f.rule) {
    case mx::ScaleRule::floor:
    case mx::ScaleRule::mse:
      break;
    case mx::ScaleRule::ceil:
      q.round_amax = kOne - 1;
      break;
    case mx::ScaleRule::even:
      q.round_amax = 1U << (22 - e.mantissa_bits);
      break;
    case mx::ScaleRule::ct:
      q.round_amax = 1U << (22 - mx::ct_mantissa_bits(e));
      break;
    case mx::ScaleRule::rceil:
      q.round_amax = kOne - 1 - (mx::detail::bits_of(e.max) & (kOne - 1));
      break;
  }
  q.emax = e.emax;
  q.limit = mx::max_scale_exponent(f.scale_bits);
  q.lanes = f.block_size / kChunk;
  return q;
}

#if defined(__CUDACC__)

/// 2^n as a float, for n in [-127, 127].
__device__ inline float power_of_two(int n) { return __int_as_float(n > -127 ? (n + 127) << 23 : 0x00400000); }

/// A value as a tensor of type T holds it.
template <typename T>
__device__ inline float rounded(float x) {
  if constexpr (sizeof(T) == 2) {
    return __bfloat162float(__float2bfloat16_rn(x));
  } else {
    return x;
  }
}
__device__ inline float bf(float x) { return rounded<BFloat16>(x); }

__device__ inline float load(float x) { return x; }
__device__ inline float load(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ inline float load(__half x) { return __half2float(x); }
__device__ inline void store(float value, float& out) { out = value; }
__device__ inline void store(float value, BFloat16& out) {
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

/// Two values as a pair of bfloat16s, the first one low.
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/// The bits of the largest magnitude.
__device__ inline uint32_t largest_of(const float (&x)[kChunk]) {
  uint32_t amax = 0;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) amax = max(amax, __float_as_uint(x[i]) & mx::detail::kMagnitude);
  return amax;
}

/// mx::shared_exponent of a format of the fast path.
__device__ inline int shared_exponent(const Quantizer& q, uint32_t amax) {
  if (amax >= mx::detail::kInfinity) return mx::kNanExponent;
  int e = -126;
  if (amax != 0) {
    int bias = 127;
    if (amax < (1U << 23)) {  // subnormal: an integer below 2^24 converts exactly
      amax = __float_as_uint(__uint2float_rn(amax));
      bias = 127 + 149;
    }
    e = static_cast<int>((amax + q.round_amax) >> 23) - bias;
  }
  e -= q.emax;
  if (e > q.limit) return mx::kNanExponent;
  return max(e, -q.limit);
}

/// |x| 2^-e on the element's grid, saturated, `inverse` = 2^-e. Any number if x is NaN or Inf.
__device__ inline float element_of(const Quantizer& q, float inverse, float x) {
  const float v = __fmul_rn(fabsf(x), inverse);  // exact, or so small that it becomes zero
  const float magic = __uint_as_float(max(__float_as_uint(v) & q.exponent_mask, q.smallest) + q.magic_step);
  return fminf(__fsub_rn(__fadd_rn(v, magic), magic), q.max);
}

/// The bits of the largest magnitude of this thread's block; every lane of the warp takes part. `amax`: of this
/// thread's values.
__device__ inline uint32_t block_largest(const Quantizer& q, uint32_t amax) {
  for (int lane = 1; lane < q.lanes; lane <<= 1) amax = max(amax, __shfl_xor_sync(kAllLanes, amax, lane));
  return amax;
}

/// The scale exponent of this thread's block; every lane of the warp takes part.
__device__ inline int block_exponent(const Quantizer& q, uint32_t amax) {
  return shared_exponent(q, block_largest(q, amax));
}

/// Quantises and decodes 8 values of a block with this scale exponent.
__device__ inline void quantize_with(const Quantizer& q, int e, const float (&x)[kChunk], float (&y)[kChunk]) {
  const bool nan = e == mx::kNanExponent;
  const float inverse = power_of_two(nan ? 0 : -e);
  const float scale = nan ? __uint_as_float(mx::detail::kQuietNan) : power_of_two(e);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    y[i] = __fadd_rn(copysignf(__fmul_rn(element_of(q, inverse, x[i]), scale), x[i]), q.zero);
  }
}

/// Quantises and decodes 8 values of a block that lies in the 8-value chunks of q.lanes neighbouring lanes. Every lane
/// of the warp takes part.
__device__ inline void quantize_chunk(const Quantizer& q, uint32_t amax, const float (&x)[kChunk], float (&y)[kChunk]) {
  quantize_with(q, block_exponent(q, amax), x, y);
}

#endif  // __CUDACC__

}  // namespace mxlm::cuda
