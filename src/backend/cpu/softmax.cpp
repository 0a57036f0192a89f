#include "backend/cpu/softmax.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

#include "backend/cpu/simd/math.hpp"

#define MXLM_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace mxlm::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The sum of a row that saw no key is 0, and so is its output.
float divisor(float sum) { return sum == 0 ? 1 : sum; }

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
  } else if (bf16) {
    MXLM_DISPATCH(isa, softmax_rows<BFloat16>(block));
  } else {
    MXLM_DISPATCH(isa, softmax_rows<float>(block));
  }
}

void rescale_add(Isa isa, int64_t rows, int64_t cols, const float* factors, const float* product, float* output) {
  assert(cols % 16 == 0);
  MXLM_DISPATCH(isa, rescale_add_rows(rows, cols, factors, product, output));
}

void normalise_rows(Isa isa, int64_t rows, int64_t cols, const float* sums, const float* output, int64_t output_stride,
                    DType type, void* out, int64_t stride) {
  const auto divide = [&]<typename T>(T* to) {
    MXLM_DISPATCH(isa, divide_rows(rows, cols, sums, output, output_stride, to, stride));
  };
  type == DType::bf16 ? divide(static_cast<BFloat16*>(out)) : divide(static_cast<float*>(out));
}

}  // namespace mxlm::cpu
