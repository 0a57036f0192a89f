#include "backend/cpu/softmax.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <type_traits>

#include "backend/cpu/simd/math.hpp"
#include "backend/cpu/vector_math.hpp"

// Everything for AVX-512 is compiled by attributes, after the includes, so that no inline function of a header is.
#define MXLM_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace mxlm::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// ---- portable

template <typename T>
T narrow(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return to_bfloat16(x);
  }
}

template <typename T>
void softmax_block_portable(const SoftmaxBlock& block) {
  for (int64_t i = 0; i < block.rows; ++i) {
    const int64_t begin = block.begin(i);
    const int64_t end = block.end(i);
    const float* s = block.scores + i * block.score_stride;
    float largest = -kInfinity;
    for (int64_t j = begin; j < end; ++j) largest = s[j] > largest ? s[j] : largest;
    const float before = block.maximum[i];
    const float maximum = std::max(before, largest * block.log2_scale);
    const float factor = before == -kInfinity ? 0.0F : exp2_sum_portable(before - maximum);
    block.maximum[i] = maximum;
    block.factors[i] = factor;
    float* sums = block.sums + i * kSumLanes;
    for (int64_t lane = 0; lane < kSumLanes; ++lane) sums[lane] *= factor;
    T* p = static_cast<T*>(block.p) + i * block.p_stride;
    std::fill_n(p, begin, narrow<T>(0.0F));
    for (int64_t j = begin; j < end; ++j) {
      const float e = exp2_sum_portable(s[j] * block.log2_scale - maximum);
      sums[j % kSumLanes] += e;
      p[j] = narrow<T>(e);
    }
    for (int64_t j = end; j < block.keys; ++j) p[j] = narrow<T>(0.0F);
  }
}

float lane_sum(const float* sums) {
  float sum = 0;
  for (int64_t lane = 0; lane < kSumLanes; ++lane) sum += sums[lane];
  return sum;
}

// The sum of a row that saw no key is 0, and so is its output.
float divisor(float sum) { return sum == 0 ? 1 : sum; }

template <typename T>
void normalise_portable(int64_t rows, int64_t cols, const float* sums, const float* output, int64_t output_stride,
                        T* out, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    const float sum = divisor(lane_sum(sums + i * kSumLanes));
    for (int64_t j = 0; j < cols; ++j) out[i * stride + j] = narrow<T>(output[i * output_stride + j] / sum);
  }
}

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/softmax.inl"
#include "backend/cpu/simd/each_target.hpp"

namespace avx512 {

/// P in bfloat16 with the processor's own rounding, which takes two vectors at once.
MXLM_TARGET_AVX512_BF16 static void softmax_rows_bf16(const SoftmaxBlock& b) {
  raise_maxima(b);
  const Floats scale = spread(b.log2_scale);
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t begin = b.begin(i);
    const int64_t end = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    BFloat16* p = static_cast<BFloat16*>(b.p) + i * b.p_stride;
    const Floats maximum = spread(b.maximum[i]);
    float* sums = b.sums + i * kSumLanes;
    Floats sum0 = mul(load(sums), spread(b.factors[i]));
    Floats sum1 = zeros();
    int64_t j = round_up(begin, 16);
    sum0 = masked_part(s, p, 0, j, begin, end, scale, maximum, sum0);
    for (; j + 32 <= end; j += 32) {
      const Floats e0 = probability<BFloat16>(s + j, scale, maximum);
      const Floats e1 = probability<BFloat16>(s + j + 16, scale, maximum);
      sum0 = add(sum0, e0);
      sum1 = add(sum1, e1);
      const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
      _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
    }
    store(sums, masked_part(s, p, j, b.keys, begin, end, scale, maximum, add(sum0, sum1)));
  }
}

}  // namespace avx512

void softmax_block(Isa isa, DType p_type, const SoftmaxBlock& block) {
  assert(block.keys % kSumLanes == 0);
  const bool bf16 = p_type == DType::bf16;
  if (isa >= Isa::avx512_bf16 && bf16) {
    avx512::softmax_rows_bf16(block);
  } else if (isa >= Isa::avx512) {
    bf16 ? avx512::softmax_rows<BFloat16>(block) : avx512::softmax_rows<float>(block);
  } else if (isa == Isa::avx2) {
    bf16 ? avx2::softmax_rows<BFloat16>(block) : avx2::softmax_rows<float>(block);
  } else {
    bf16 ? softmax_block_portable<BFloat16>(block) : softmax_block_portable<float>(block);
  }
}

void rescale_add(Isa isa, int64_t rows, int64_t cols, const float* factors, const float* product, float* output) {
  assert(cols % 16 == 0);
  if (isa >= Isa::avx512) return avx512::rescale_add_rows(rows, cols, factors, product, output);
  if (isa == Isa::avx2) return avx2::rescale_add_rows(rows, cols, factors, product, output);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i * cols; j < (i + 1) * cols; ++j) output[j] = output[j] * factors[i] + product[j];
  }
}

void normalise_rows(Isa isa, int64_t rows, int64_t cols, const float* sums, const float* output, int64_t output_stride,
                    DType type, void* out, int64_t stride) {
  const auto divide = [&]<typename T>(T* to) {
    if (isa >= Isa::avx512) return avx512::divide_rows(rows, cols, sums, output, output_stride, to, stride);
    if (isa == Isa::avx2) return avx2::divide_rows(rows, cols, sums, output, output_stride, to, stride);
    normalise_portable(rows, cols, sums, output, output_stride, to, stride);
  };
  type == DType::bf16 ? divide(static_cast<BFloat16*>(out)) : divide(static_cast<float*>(out));
}

}  // namespace mxlm::cpu
