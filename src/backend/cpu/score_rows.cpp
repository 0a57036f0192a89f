#include "backend/cpu/score_rows.hpp"

#include "backend/cpu/row_values.hpp"
#include "backend/cpu/simd/math.hpp"

namespace mxlm::cpu {
namespace {

/// x = limit * tanh(x * inner) + slope * (j + distance) over a row, without tanh where limit is 0: then x * inner.
struct Row {
  float inner = 1, limit = 0, slope = 0, distance = 0;
};

}  // namespace

#define MXLM_SIMD_BODIES "backend/cpu/simd/score.inl"
#include "backend/cpu/simd/each_target.hpp"

void transform_logits(Isa isa, float multiplier, float softcap, int64_t n, float* x) {
  const Row row{.inner = softcap == 0 ? multiplier : multiplier / softcap, .limit = softcap};
  MXLM_DISPATCH(isa, transform(row, n, x));
}

void transform_scores(Isa isa, const ScoreTransform& transform, int64_t query, int64_t key, int64_t rows, int64_t keys,
                      float* scores, int64_t stride) {
  Row row;
  row.inner = transform.softcap == 0 ? transform.scale * kLog2e : transform.scale / transform.softcap;
  row.limit = transform.softcap * kLog2e;
  row.slope = transform.slope * kLog2e;
  for (int64_t i = 0; i < rows; ++i) {
    row.distance = static_cast<float>(key - (query + i));
    MXLM_DISPATCH(isa, transform(row, keys, scores + i * stride));
  }
}

}  // namespace mxlm::cpu
