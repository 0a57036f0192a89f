#include "backend/cpu/softmax.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <type_traits>

#include "backend/cpu/exp2_coarse.hpp"
#include "backend/cpu/vector_math.hpp"

// Everything for AVX-512 is compiled by attributes, after the includes, so that no inline function of a header is.
#define MXLM_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define MXLM_INLINE __attribute__((always_inline)) inline

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

// ---- AVX-512

enum class Store : uint8_t { f32, bf16_integer, bf16 };

// Rounds to bfloat16 (to nearest even) without AVX512-BF16.
MXLM_TARGET_AVX512 MXLM_INLINE __m256i round_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
}

// Raises the maxima and sets the factors of all rows.
MXLM_TARGET_AVX512 MXLM_INLINE void raise_maxima(const SoftmaxBlock& b) {
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t visible = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    __m512 m0 = _mm512_set1_ps(-kInfinity);
    __m512 m1 = m0;
    int64_t j = b.begin(i);
    for (; j + 32 <= visible; j += 32) {
      m0 = _mm512_max_ps(m0, _mm512_loadu_ps(s + j));
      m1 = _mm512_max_ps(m1, _mm512_loadu_ps(s + j + 16));
    }
    if (j + 16 <= visible) {
      m0 = _mm512_max_ps(m0, _mm512_loadu_ps(s + j));
      j += 16;
    }
    if (j < visible) {
      const auto mask = static_cast<__mmask16>((1U << (visible - j)) - 1);
      m1 = _mm512_mask_max_ps(m1, mask, m1, _mm512_loadu_ps(s + j));
    }
    b.factors[i] = _mm512_reduce_max_ps(_mm512_max_ps(m0, m1));
  }
  const __m512 scale = _mm512_set1_ps(b.log2_scale);
  for (int64_t i = 0; i < b.rows; i += 16) {
    const auto mask = static_cast<__mmask16>(b.rows - i >= 16 ? 0xffffU : (1U << (b.rows - i)) - 1);
    const __m512 before = _mm512_maskz_loadu_ps(mask, b.maximum + i);
    const __m512 maximum = _mm512_max_ps(before, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, b.factors + i), scale));
    const __mmask16 started = _mm512_cmp_ps_mask(before, _mm512_set1_ps(-kInfinity), _CMP_NEQ_UQ);
    const __m512 factor = _mm512_maskz_mov_ps(started, exp2_sum_avx512(_mm512_sub_ps(before, maximum)));
    _mm512_mask_storeu_ps(b.maximum + i, mask, maximum);
    _mm512_mask_storeu_ps(b.factors + i, mask, factor);
  }
}

// The exponentials of one vector of scores.
template <Store store>
MXLM_TARGET_AVX512 MXLM_INLINE __m512 probability(const float* s, __m512 scale, __m512 maximum) {
  const __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(s), scale, maximum);
  if constexpr (store == Store::f32) {
    return exp2_sum_avx512(x);
  } else {
    return exp2_coarse_avx512(x);
  }
}

template <Store store>
using Probability = std::conditional_t<store == Store::f32, float, BFloat16>;

// Columns [j, to) of a row, both multiples of 16, of which [begin, end) are visible: the partial vectors and the zeros.
template <Store store>
MXLM_TARGET_AVX512 MXLM_INLINE __m512 masked_part(const float* s, Probability<store>* p, int64_t j, int64_t to,
                                                  int64_t begin, int64_t end, __m512 scale, __m512 maximum,
                                                  __m512 sum) {
  for (; j < to; j += 16) {
    __m512 e = _mm512_setzero_ps();
    if (j < end && j + 16 > begin) {
      const uint32_t before_end = end - j >= 16 ? 0xffffU : (1U << (end - j)) - 1U;
      const uint32_t before_begin = begin <= j ? 0U : (1U << (begin - j)) - 1U;
      e = _mm512_maskz_mov_ps(static_cast<__mmask16>(before_end & ~before_begin),
                              probability<store>(s + j, scale, maximum));
    }
    sum = _mm512_add_ps(sum, e);
    if constexpr (store == Store::f32) {
      _mm512_storeu_ps(p + j, e);
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + j), round_bf16(e));
    }
  }
  return sum;
}

MXLM_TARGET_AVX512 void softmax_block_avx512_f32(const SoftmaxBlock& b) {
  raise_maxima(b);
  const __m512 scale = _mm512_set1_ps(b.log2_scale);
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t begin = b.begin(i);
    const int64_t end = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    float* p = static_cast<float*>(b.p) + i * b.p_stride;
    const __m512 maximum = _mm512_set1_ps(b.maximum[i]);
    float* sums = b.sums + i * kSumLanes;
    __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(b.factors[i]));
    int64_t j = round_up(begin, 16);
    sum = masked_part<Store::f32>(s, p, 0, j, begin, end, scale, maximum, sum);
    for (; j + 16 <= end; j += 16) {
      const __m512 e = probability<Store::f32>(s + j, scale, maximum);
      sum = _mm512_add_ps(sum, e);
      _mm512_storeu_ps(p + j, e);
    }
    sum = masked_part<Store::f32>(s, p, j, b.keys, begin, end, scale, maximum, sum);
    _mm512_storeu_ps(sums, sum);
  }
}

MXLM_TARGET_AVX512 void softmax_block_avx512_bf16(const SoftmaxBlock& b) {
  raise_maxima(b);
  const __m512 scale = _mm512_set1_ps(b.log2_scale);
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t begin = b.begin(i);
    const int64_t end = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    BFloat16* p = static_cast<BFloat16*>(b.p) + i * b.p_stride;
    const __m512 maximum = _mm512_set1_ps(b.maximum[i]);
    float* sums = b.sums + i * kSumLanes;
    __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(b.factors[i]));
    int64_t j = round_up(begin, 16);
    sum = masked_part<Store::bf16_integer>(s, p, 0, j, begin, end, scale, maximum, sum);
    for (; j + 16 <= end; j += 16) {
      const __m512 e = probability<Store::bf16_integer>(s + j, scale, maximum);
      sum = _mm512_add_ps(sum, e);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + j), round_bf16(e));
    }
    sum = masked_part<Store::bf16_integer>(s, p, j, b.keys, begin, end, scale, maximum, sum);
    _mm512_storeu_ps(sums, sum);
  }
}

MXLM_TARGET_AVX512_BF16 void softmax_block_avx512bf16_bf16(const SoftmaxBlock& b) {
  raise_maxima(b);
  const __m512 scale = _mm512_set1_ps(b.log2_scale);
  for (int64_t i = 0; i < b.rows; ++i) {
    const int64_t begin = b.begin(i);
    const int64_t end = b.end(i);
    const float* s = b.scores + i * b.score_stride;
    BFloat16* p = static_cast<BFloat16*>(b.p) + i * b.p_stride;
    const __m512 maximum = _mm512_set1_ps(b.maximum[i]);
    float* sums = b.sums + i * kSumLanes;
    __m512 sum0 = _mm512_mul_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(b.factors[i]));
    __m512 sum1 = _mm512_setzero_ps();
    int64_t j = round_up(begin, 16);
    sum0 = masked_part<Store::bf16>(s, p, 0, j, begin, end, scale, maximum, sum0);
    for (; j + 32 <= end; j += 32) {
      const __m512 e0 = probability<Store::bf16>(s + j, scale, maximum);
      const __m512 e1 = probability<Store::bf16>(s + j + 16, scale, maximum);
      sum0 = _mm512_add_ps(sum0, e0);
      sum1 = _mm512_add_ps(sum1, e1);
      const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
      _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
    }
    sum0 = masked_part<Store::bf16>(s, p, j, b.keys, begin, end, scale, maximum, _mm512_add_ps(sum0, sum1));
    _mm512_storeu_ps(sums, sum0);
  }
}

MXLM_TARGET_AVX512 void rescale_add_avx512(int64_t rows, int64_t cols, const float* factors, const float* product,
                                           float* output) {
  for (int64_t i = 0; i < rows; ++i) {
    const __m512 factor = _mm512_set1_ps(factors[i]);
    for (int64_t j = i * cols; j < (i + 1) * cols; j += 16) {
      _mm512_storeu_ps(output + j, _mm512_fmadd_ps(_mm512_loadu_ps(output + j), factor, _mm512_loadu_ps(product + j)));
    }
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

template <bool bf16>
MXLM_TARGET_AVX512 void normalise_avx512(int64_t rows, int64_t cols, const float* sums, const float* output,
                                         int64_t output_stride, Probability<bf16 ? Store::bf16 : Store::f32>* out,
                                         int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    const __m512 sum = _mm512_set1_ps(divisor(_mm512_reduce_add_ps(_mm512_loadu_ps(sums + i * kSumLanes))));
    for (int64_t j = 0; j < cols; j += 16) {
      const auto mask = static_cast<__mmask16>(cols - j >= 16 ? 0xffffU : (1U << (cols - j)) - 1);
      const __m512 y = _mm512_div_ps(_mm512_maskz_loadu_ps(mask, output + i * output_stride + j), sum);
      if constexpr (bf16) {
        _mm256_mask_storeu_epi16(out + i * stride + j, mask, round_bf16(y));
      } else {
        _mm512_mask_storeu_ps(out + i * stride + j, mask, y);
      }
    }
  }
}

}  // namespace

void softmax_block(Isa isa, DType p_type, const SoftmaxBlock& block) {
  assert(block.keys % kSumLanes == 0);
  if (isa < Isa::avx512) {
    p_type == DType::bf16 ? softmax_block_portable<BFloat16>(block) : softmax_block_portable<float>(block);
  } else if (p_type == DType::f32) {
    softmax_block_avx512_f32(block);
  } else if (isa == Isa::avx512) {
    softmax_block_avx512_bf16(block);
  } else {
    softmax_block_avx512bf16_bf16(block);
  }
}

void rescale_add(Isa isa, int64_t rows, int64_t cols, const float* factors, const float* product, float* output) {
  assert(cols % 16 == 0);
  if (isa >= Isa::avx512) return rescale_add_avx512(rows, cols, factors, product, output);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i * cols; j < (i + 1) * cols; ++j) output[j] = output[j] * factors[i] + product[j];
  }
}

void normalise_rows(Isa isa, int64_t rows, int64_t cols, const float* sums, const float* output, int64_t output_stride,
                    DType type, void* out, int64_t stride) {
  if (type == DType::bf16) {
    auto* to = static_cast<BFloat16*>(out);
    isa < Isa::avx512 ? normalise_portable(rows, cols, sums, output, output_stride, to, stride)
                      : normalise_avx512<true>(rows, cols, sums, output, output_stride, to, stride);
  } else {
    auto* to = static_cast<float*>(out);
    isa < Isa::avx512 ? normalise_portable(rows, cols, sums, output, output_stride, to, stride)
                      : normalise_avx512<false>(rows, cols, sums, output, output_stride, to, stride);
  }
}

}  // namespace mxlm::cpu
