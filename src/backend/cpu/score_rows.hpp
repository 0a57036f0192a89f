#pragma once

// What models do to a row of products before a softmax: of attention scores, and of logits.

#include <cstdint>

#include "backend/cpu/isa.hpp"

namespace mxlm::cpu {

/// x = softcap * tanh(x * multiplier / softcap), or x * multiplier where softcap is 0; n values. Relative error below
/// 1e-6.
void transform_logits(Isa isa, float multiplier, float softcap, int64_t n, float* x);

/// From a product q.k to what the softmax takes, in units of log2: log2(e) * (cap(scale * score) + slope * (key -
/// query)), cap(x) = softcap * tanh(x / softcap) unless softcap is 0.
struct ScoreTransform {
  float scale = 1, softcap = 0, slope = 0;
  [[nodiscard]] bool needed() const { return softcap != 0 || slope != 0; }
};

/// Transforms rows of scores in place: row i is of query `query` + i, column j of key `key` + j.
void transform_scores(Isa isa, const ScoreTransform& transform, int64_t query, int64_t key, int64_t rows, int64_t keys,
                      float* scores, int64_t stride);

}  // namespace mxlm::cpu
