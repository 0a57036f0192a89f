#pragma once

// Matrix products of a warp on tensor cores, as both attention kernels use them. In a product of 16 rows by 8 columns a
// thread has, with g = lane / 4 and t = lane % 4, rows g and g + 8 and columns 2t and 2t + 1 of the result.

#include <cuda_bf16.h>

#include <cstdint>

#include "tensor/dtype.hpp"

namespace mxlm::cuda::mma {

constexpr unsigned kAllLanes = 0xffffffffU;
/// As backend/cpu/vector_math.hpp has it: a softmax multiplies by this very value.
constexpr float kLog2e = 0x1.715476p+0F;

__device__ inline float load(float x) { return x; }
__device__ inline float load(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ inline void store(float x, float& out) { out = x; }
__device__ inline void store(float x, BFloat16& out) { out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ inline float round_bf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

/// Two numbers as bfloat16, `low` in the low half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
         static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16;
}

/// d += a b, 16 x 16 by 16 x 8.
__device__ inline void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// d += a b, 16 x 8 by 8 x 8. a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b: (t, g), (t + 4, g).
__device__ inline void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// x = hi + lo with hi a TF32 number (11 significant bits, the nearest). lo is exact in float32 and has 12 bits at
/// most, of which the product takes the upper 11: what is left out is below 2^-23 |x| and has either sign.
__device__ inline void split_tf32(float x, uint32_t& hi, uint32_t& lo) {
  hi = (__float_as_uint(x) + 0x1000U) & 0xffffe000U;
  lo = __float_as_uint(x - __uint_as_float(hi));
}

/// 16 x 8 float32 numbers for a product: split, or, where all are bfloat16 values, as they are.
template <bool split>
struct Left {
  uint32_t hi[4], lo[4];
  __device__ Left(float a0, float a1, float a2, float a3) {
    const float a[4] = {a0, a1, a2, a3};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (split) {
        split_tf32(a[i], hi[i], lo[i]);
      } else {
        hi[i] = __float_as_uint(a[i]);
        lo[i] = 0;
      }
    }
  }
};

/// sum += a b with b = (b0, b1) at float32's accuracy: small products first, and the sum over these eight added to
/// `sum` with rounding to nearest (a tensor core's own sums are cut off).
template <bool split>
__device__ inline void add_product(float (&sum)[4], const Left<split>& a, float b0, float b1) {
  float p[4] = {0, 0, 0, 0};
  if constexpr (split) {
    uint32_t hi0, lo0, hi1, lo1;
    split_tf32(b0, hi0, lo0);
    split_tf32(b1, hi1, lo1);
    multiply_tf32(p, a.lo, hi0, hi1);
    multiply_tf32(p, a.hi, lo0, lo1);
    multiply_tf32(p, a.hi, hi0, hi1);
  } else {
    multiply_tf32(p, a.hi, __float_as_uint(b0), __float_as_uint(b1));
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] += p[i];
}

/// Four 8 x 8 matrices of 16-bit elements from shared memory; lane l gives the address of row l % 8 of matrix l / 8. A
/// thread gets columns 2t, 2t + 1 of row g of each; transposed, rows 2t, 2t + 1 of column g.
__device__ inline void load_matrices(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

/// 16 bytes from global to shared memory beside the thread's work, zeros if not `valid`.
__device__ inline void copy_async(void* to, const void* from, bool valid) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

/// From a product q.k to what the softmax takes in units of log2: backend/cpu/score_rows.hpp. Where `needed` is false,
/// the softmax multiplies by log2_scale itself.
struct ScoreTransform {
  float inner, limit, slope, log2_scale;
  bool needed;
  __device__ ScoreTransform(float scale, float softcap, float head_slope)
      : inner(softcap == 0 ? scale * kLog2e : scale / softcap),
        limit(softcap * kLog2e),
        slope(head_slope * kLog2e),
        log2_scale(softcap != 0 || head_slope != 0 ? 1.0F : scale * kLog2e),
        needed(softcap != 0 || head_slope != 0) {}
  __device__ float operator()(float score, int distance) const {
    float x = score * inner;
    if (limit != 0) x = limit * tanhf(x);
    return slope == 0 ? x : fmaf(slope, static_cast<float>(distance), x);
  }
};

}  // namespace mxlm::cuda::mma
