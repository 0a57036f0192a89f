#include "backend/cpu/score_rows.hpp"

#include "backend/cpu/row_values.hpp"
#include "backend/cpu/vector_math.hpp"

namespace mxlm::cpu {
namespace {

/// x = limit * tanh(x * inner) + slope * (j + distance) over a row, without tanh where limit is 0: then x * inner.
struct Row {
  float inner = 1, limit = 0, slope = 0, distance = 0;
};

void transform_portable(const Row& row, int64_t n, float* x) {
  if (row.limit != 0) {
    for (int64_t j = 0; j < n; ++j) x[j] = row.limit * tanh_portable(x[j] * row.inner);
  } else {
    for (int64_t j = 0; j < n; ++j) x[j] *= row.inner;
  }
  if (row.slope == 0) return;
  for (int64_t j = 0; j < n; ++j) x[j] += row.slope * (static_cast<float>(j) + row.distance);
}

template <bool capped, bool sloped>
MXLM_TARGET_AVX512 void transform_avx512(const Row& row, int64_t n, float* x) {
  const __m512 inner = _mm512_set1_ps(row.inner);
  const __m512 limit = _mm512_set1_ps(row.limit);
  const __m512 slope = _mm512_set1_ps(row.slope);
  const __m512 step = _mm512_set1_ps(kLanes);
  __m512 distance =
      _mm512_add_ps(_mm512_set1_ps(row.distance), _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  for (int64_t j = 0; j < n; j += kLanes) {
    const __mmask16 mask = lanes_left(n - j);
    __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + j), inner);
    if constexpr (capped) v = _mm512_mul_ps(tanh_avx512(v), limit);
    if constexpr (sloped) {
      v = _mm512_fmadd_ps(slope, distance, v);
      distance = _mm512_add_ps(distance, step);
    }
    _mm512_mask_storeu_ps(x + j, mask, v);
  }
}

void transform_row(Isa isa, const Row& row, int64_t n, float* x) {
  if (isa >= Isa::avx512) {
    if (row.slope == 0)
      return row.limit == 0 ? transform_avx512<false, false>(row, n, x) : transform_avx512<true, false>(row, n, x);
    return row.limit == 0 ? transform_avx512<false, true>(row, n, x) : transform_avx512<true, true>(row, n, x);
  }
  transform_portable(row, n, x);
}

}  // namespace

void transform_logits(Isa isa, float multiplier, float softcap, int64_t n, float* x) {
  transform_row(isa, {.inner = softcap == 0 ? multiplier : multiplier / softcap, .limit = softcap}, n, x);
}

void transform_scores(Isa isa, const ScoreTransform& transform, int64_t query, int64_t key, int64_t rows, int64_t keys,
                      float* scores, int64_t stride) {
  Row row;
  row.inner = transform.softcap == 0 ? transform.scale * kLog2e : transform.scale / transform.softcap;
  row.limit = transform.softcap * kLog2e;
  row.slope = transform.slope * kLog2e;
  for (int64_t i = 0; i < rows; ++i) {
    row.distance = static_cast<float>(key - (query + i));
    transform_row(isa, row, keys, scores + i * stride);
  }
}

}  // namespace mxlm::cpu
