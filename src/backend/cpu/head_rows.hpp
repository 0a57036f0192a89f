#pragma once

// The figures of one scored token, gathered chunk by chunk over the vocabulary. Chunks come in ascending order and have
// the same bounds for every token, so that a token's figures depend on its logits alone.
//
// With c = log2(e) in float32 and M the largest logit so far,
//   sum   = sum of 2^(c * (logit - M))
//   cross = sum of 2^(c * (logit_b - M_b)) * (logit_b - logit_v), b the baseline, v the variant
//   reverse = sum of 2^(c * (logit_v - M_v)) * (logit_v - logit_b)
// from which ln p(target), KL(b || v) = cross / sum_b + LSE_v - LSE_b and KL(v || b) = reverse / sum_v + LSE_b - LSE_v
// follow. Terms are float32, a chunk's sums are
// float32 in 16 lanes, sums over chunks are double. Equal logits give a KL of exactly 0; otherwise rounding leaves
// about 1e-7, of either sign. For the entropy of a row there is, only where it is asked for,
//   moment = sum of 2^(c * (logit - M)) * (logit - M), so that -sum p ln p = ln sum - moment / sum.

#include <array>
#include <cstdint>

#include "backend/backend.hpp"
#include "backend/cpu/isa.hpp"

namespace mxlm::cpu {

struct alignas(64) TokenState {
  std::array<double, 8> sum{};
  std::array<double, 8> cross{};    // variants only
  std::array<double, 8> reverse{};  // variants only
  std::array<double, 8> moment{};   // with `self` only
  double jensen_shannon = 0;        // of the second pass
  float max = 0;                    // M; unset until the first chunk
  float target = 0;                 // the target's logit
  int32_t top1 = 0;
  bool started = false;
  bool finite = true;
  bool self = false;  // ScoreKind::self; set before the first chunk
};

/// Logits [first, first + count) of a token; memory for round_up(count, 16) of them.
struct LogitChunk {
  float* logits = nullptr;      // without the bias, which is added here in place
  const float* bias = nullptr;  // [count], or null
  int64_t first = 0, count = 0;
  int32_t target = 0;  // a token id, in this chunk or not
};

/// Takes in a chunk of the baseline and leaves 2^(c * (logit - M)) of every logit in `powers`, for the variants.
/// Returns what earlier terms must be multiplied with because M has changed.
double add_baseline_chunk(Isa isa, const LogitChunk& chunk, TokenState& state, float* powers);

/// Takes in the same chunk of a variant. `baseline` are the baseline's logits (with bias), `powers` and `rescale` as
/// add_baseline_chunk left them.
void add_variant_chunk(Isa isa, const LogitChunk& chunk, TokenState& state, const float* baseline, const float* powers,
                       double rescale);

/// The second pass, when all chunks are in: adds this chunk's part of the Jensen-Shannon divergence to `state`. Logits
/// have their bias.
///
/// With d = |ln q - ln p|, z = e^-d and x = d / 2, a term of the divergence of p and q is
///   max(p, q) / 2 * ((1 + z) ln(2 / (1 + z)) - z d)  =  max(p, q) sqrt(z) (x sinh x - cosh x ln cosh x),
/// which no larger terms of other signs have to cancel out of. Below d = 1/4 the second form's series is used.
void add_jensen_shannon_chunk(const float* baseline, const TokenState& baseline_state, const float* logits,
                              TokenState& state, int64_t count);

/// The figures once all chunks are in; for the baseline itself, `baseline` is `state`.
TokenScore finish_token(const TokenState& state, const TokenState& baseline);

}  // namespace mxlm::cpu
