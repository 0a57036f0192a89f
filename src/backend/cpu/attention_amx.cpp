#include "backend/cpu/attention_amx.hpp"

// GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>

#include "backend/cpu/vector_math.hpp"

#define MXLM_TARGET_AMX_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#define MXLM_INLINE __attribute__((always_inline)) inline

namespace mxlm::cpu {
namespace {

constexpr int64_t kTile = 16;  // rows of a tile, and float32 columns of one
constexpr int64_t kPair = 32;  // keys of two panels, bf16 columns of one tile
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A row's reference is only raised when scores exceed it by this much (in powers of two): what was summed so far then
// rarely has to be rescaled, and probabilities stay below 2^8, where float32 and bf16 are as fine as below 1.
constexpr float kSlack = 8;

// 2^f on [0, 1) by minimising the largest relative error, 2.9e-6: P is rounded to bf16 (4e-3) at once.
constexpr float kPower[5] = {1.0F, 0x1.62d6c6p-1F, 0x1.ee2450p-3F, 0x1.abf868p-5F, 0x1.b7f732p-7F};

MXLM_TARGET_AMX_BF16 MXLM_INLINE __m512 exp2_coarse(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
  __m512 y = _mm512_set1_ps(kPower[4]);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kPower[3]));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kPower[2]));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kPower[1]));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kPower[0]));
  return _mm512_scalef_ps(y, x);  // y * 2^floor(x)
}

// The tile intrinsics of GCC 12 do not tell the compiler that they read memory.
MXLM_INLINE void settle_memory() { __asm__ volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

/// C[32, 32 * pairs] (+)= A[32, 32 * steps] * W, two panels of 16 columns at a time.
struct Product {
  const BFloat16* a = nullptr;
  int64_t a_stride = 0;
  const BFloat16* w = nullptr;
  int64_t panel = 0;  // elements from a panel to the next
  int64_t steps = 0;  // of 32 terms of the sum
  int64_t pairs = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
};

/// Two products one after the other, to be done a step (four tile products) at a time between other work.
class TileWork {
 public:
  TileWork(Order order, const Product& first, const Product& second)
      : direction_(order == Order::forward ? 1 : -1), next_(second) {
    start(first);
    left_ = first.pairs * first.steps + second.pairs * second.steps;
  }
  [[nodiscard]] int64_t left() const { return left_; }

  MXLM_TARGET_AMX_BF16 MXLM_INLINE void step() {
    settle_memory();
    const auto a_bytes = static_cast<long>(now_.a_stride * 2);
    const auto c_bytes = static_cast<long>(now_.c_stride * 4);
    if (step_ == now_.steps) {
      if (now_.accumulate) {
        _tile_loadd(0, now_.c, c_bytes);
        _tile_loadd(1, now_.c + kTile, c_bytes);
        _tile_loadd(2, now_.c + kTile * now_.c_stride, c_bytes);
        _tile_loadd(3, now_.c + kTile * now_.c_stride + kTile, c_bytes);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
    }
    _tile_loadd(6, w_, 64);
    _tile_loadd(4, a_, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w_ + now_.panel, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a_ + kTile * now_.a_stride, a_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    a_ += direction_ * kPair;
    w_ += direction_ * kPair * kTile;
    --left_;
    if (--step_ == 0) {
      _tile_stored(0, now_.c, c_bytes);
      _tile_stored(1, now_.c + kTile, c_bytes);
      _tile_stored(2, now_.c + kTile * now_.c_stride, c_bytes);
      _tile_stored(3, now_.c + kTile * now_.c_stride + kTile, c_bytes);
      now_.c += kPair;
      now_.w += 2 * now_.panel;
      if (--now_.pairs == 0) {
        start(next_);
      } else {
        rewind();
      }
    }
    settle_memory();
  }

 private:
  void start(const Product& product) {
    now_ = product.pairs > 0 ? product : next_;
    if (now_.pairs > 0) rewind();
  }
  void rewind() {
    step_ = now_.steps;
    const int64_t first = direction_ > 0 ? 0 : now_.steps - 1;
    a_ = now_.a + first * kPair;
    w_ = now_.w + first * kPair * kTile;
  }

  int64_t direction_;
  Product now_, next_;
  const BFloat16* a_ = nullptr;
  const BFloat16* w_ = nullptr;
  int64_t step_ = 0;  // steps left of this pair
  int64_t left_ = 0;
};

/// 32 queries against up to 128 keys.
struct Step {
  int64_t query = 0, key = 0;        // the first
  int64_t keys = 0;                  // a multiple of 32
  bool first = false, last = false;  // of its queries
  bool diagonal = false;             // row i sees keys - 31 + i keys, else all
};

int64_t block_of(const AmxAttention& task, int64_t blocks, int64_t n) {
  return task.order == Order::forward ? n : blocks - 1 - n;
}

Step make_step(const AmxAttention& task, int64_t query, int64_t n) {
  const int64_t seen = query + kAmxQueries;
  const int64_t blocks = (seen + kAmxKeys - 1) / kAmxKeys;
  Step step;
  step.query = query;
  step.key = block_of(task, blocks, n) * kAmxKeys;
  step.keys = std::min(kAmxKeys, seen - step.key);
  step.first = n == 0;
  step.last = n == blocks - 1;
  step.diagonal = step.key + step.keys == seen;
  return step;
}

/// What 32 rows of scores become, and the state of their softmax.
struct Rows {
  const float* scores;  // [32, kAmxKeys]
  BFloat16* p;          // [32, kAmxKeys]
  float* reference;     // [32]: p = 2^(score * scale - reference)
  float* sums;          // [32, 16]
  float* factors;       // [32]
};

// Row i of the diagonal sees the first i + 1 of its last 32 keys.
MXLM_INLINE uint32_t visible_mask(bool diagonal, int64_t i) { return diagonal ? 0xffffffffU >> (31 - i) : 0xffffffffU; }

MXLM_TARGET_AMX_BF16 MXLM_INLINE __m512 max_of_halves(__m512 a, __m512 b) {
  return _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
MXLM_TARGET_AMX_BF16 MXLM_INLINE __m512 max_of_pairs(__m512 a, __m512 b) {
  const __m512d x = _mm512_castps_pd(a);
  const __m512d y = _mm512_castps_pd(b);
  return _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
MXLM_TARGET_AMX_BF16 MXLM_INLINE __m512 max_of_quarters(__m512 a, __m512 b) {
  return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/// The largest score of each of 16 rows.
MXLM_TARGET_AMX_BF16 MXLM_INLINE __m512 largest_of_rows(const float* scores, int64_t row, int64_t keys, bool diagonal) {
  __m512 m[16];
  const float* s = scores + row * kAmxKeys;
  const int64_t full = keys - kPair;
#pragma GCC unroll 16
  for (int64_t i = 0; i < 16; ++i) {
    const uint32_t mask = visible_mask(diagonal, row + i);
    const __m512 low = _mm512_set1_ps(-kInfinity);
    m[i] = _mm512_mask_loadu_ps(low, static_cast<__mmask16>(mask), s + i * kAmxKeys + full);
    m[i] = _mm512_mask_max_ps(m[i], static_cast<__mmask16>(mask >> 16), m[i],
                              _mm512_loadu_ps(s + i * kAmxKeys + full + 16));
  }
  for (int64_t j = 0; j < full; j += kPair) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < 16; ++i) {
      m[i] = _mm512_max_ps(m[i], _mm512_loadu_ps(s + i * kAmxKeys + j));
      m[i] = _mm512_max_ps(m[i], _mm512_loadu_ps(s + i * kAmxKeys + j + 16));
    }
  }
  // Four rounds, each of which halves the vectors and the lanes of a row.
#pragma GCC unroll 8
  for (int64_t i = 0; i < 8; ++i) m[i] = max_of_halves(m[2 * i], m[2 * i + 1]);
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) m[i] = max_of_pairs(m[2 * i], m[2 * i + 1]);
#pragma GCC unroll 2
  for (int64_t i = 0; i < 2; ++i) m[i] = max_of_quarters(m[2 * i], m[2 * i + 1]);
  return max_of_quarters(m[0], m[1]);
}

/// Raises the references of 16 rows where they have to be; true if anything has to be rescaled.
MXLM_TARGET_AMX_BF16 MXLM_INLINE bool raise_references(const Rows& rows, const Step& step, int64_t row, __m512 scale) {
  const __m512 largest = _mm512_mul_ps(largest_of_rows(rows.scores, row, step.keys, step.diagonal), scale);
  if (step.first) {
    _mm512_storeu_ps(rows.reference + row, largest);
    return false;
  }
  const __m512 before = _mm512_loadu_ps(rows.reference + row);
  const __mmask16 raised = _mm512_cmp_ps_mask(largest, _mm512_add_ps(before, _mm512_set1_ps(kSlack)), _CMP_GT_OQ);
  if (raised == 0) {
    _mm512_storeu_ps(rows.factors + row, _mm512_set1_ps(1));
    return false;
  }
  const __m512 after = _mm512_mask_mov_ps(before, raised, largest);
  const __m512 factor = _mm512_mask_mov_ps(_mm512_set1_ps(1), raised, exp2_sum_avx512(_mm512_sub_ps(before, after)));
  _mm512_storeu_ps(rows.reference + row, after);
  _mm512_storeu_ps(rows.factors + row, factor);
  for (int64_t i = row; i < row + 16; ++i) {
    float* sums = rows.sums + i * kTile;
    _mm512_storeu_ps(sums, _mm512_mul_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(rows.factors[i])));
  }
  return true;
}

/// P and the sum of row i.
MXLM_TARGET_AMX_BF16 MXLM_INLINE void exponentials(const Rows& rows, const Step& step, int64_t i, __m512 scale) {
  const float* s = rows.scores + i * kAmxKeys;
  BFloat16* p = rows.p + i * kAmxKeys;
  float* sums = rows.sums + i * kTile;
  const __m512 reference = _mm512_set1_ps(rows.reference[i]);
  __m512 sum0 = step.first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums);
  __m512 sum1 = _mm512_setzero_ps();
  int64_t j = 0;
  for (; j < step.keys - kPair; j += kPair) {
    const __m512 e0 = exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), scale, reference));
    const __m512 e1 = exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + 16), scale, reference));
    sum0 = _mm512_add_ps(sum0, e0);
    sum1 = _mm512_add_ps(sum1, e1);
    const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
    _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
  }
  const uint32_t mask = visible_mask(step.diagonal, i);
  const auto mask0 = static_cast<__mmask16>(mask);
  const auto mask1 = static_cast<__mmask16>(mask >> 16);
  const __m512 e0 = _mm512_maskz_mov_ps(mask0, exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), scale, reference)));
  const __m512 e1 =
      _mm512_maskz_mov_ps(mask1, exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + 16), scale, reference)));
  sum0 = _mm512_add_ps(sum0, e0);
  sum1 = _mm512_add_ps(sum1, e1);
  const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
  _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
  _mm512_storeu_ps(sums, _mm512_add_ps(sum0, sum1));
}

/// Divides the output of 32 queries by their sums and stores those of this task.
MXLM_TARGET_AMX_BF16 void store_output(const AmxAttention& task, int64_t query, const float* sums,
                                       const float* output) {
  const int64_t rows = std::min(kAmxQueries, task.end - query);
  for (int64_t i = 0; i < rows; ++i) {
    const __m512 factor = _mm512_set1_ps(1 / _mm512_reduce_add_ps(_mm512_loadu_ps(sums + i * kTile)));
    BFloat16* out = task.out + (query + i) * task.out_stride;
    for (int64_t j = 0; j < task.head_dim; j += 16) {
      const auto mask = static_cast<__mmask16>(task.head_dim - j >= 16 ? 0xffffU : (1U << (task.head_dim - j)) - 1);
      const __m256bh y = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(output + i * task.depth + j), factor));
      _mm256_mask_storeu_epi16(out + j, mask, reinterpret_cast<const __m256i&>(y));
    }
  }
}

MXLM_TARGET_AMX_BF16 void rescale(const float* factors, int64_t depth, float* output) {
  for (int64_t i = 0; i < kAmxQueries; ++i) {
    const __m512 factor = _mm512_set1_ps(factors[i]);
    for (int64_t j = i * depth; j < (i + 1) * depth; j += 16) {
      _mm512_storeu_ps(output + j, _mm512_mul_ps(_mm512_loadu_ps(output + j), factor));
    }
  }
}

/// The queries of a step as rows of `depth` values, missing ones and the padding zeros.
void copy_queries(const AmxAttention& task, int64_t query, BFloat16* to) {
  const int64_t rows = std::min(kAmxQueries, task.end - query);
  if (rows < kAmxQueries || task.depth != task.head_dim) std::fill_n(to, kAmxQueries * task.depth, BFloat16{});
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * task.depth, task.q + (query + i) * task.q_stride,
                static_cast<size_t>(task.head_dim) * sizeof(BFloat16));
  }
}

constexpr int64_t kScoreElements = kAmxQueries * kAmxKeys;

/// The work on a task's steps, in three stages that overlap: scores of the next step, softmax of this one, P V of the
/// one before.
class Pipeline {
 public:
  Pipeline(const AmxAttention& task, std::byte* scratch) : task_(task) {
    auto* f = reinterpret_cast<float*>(scratch);
    const auto take = [&](int64_t elements) {
      float* taken = f;
      f += elements;
      return taken;
    };
    for (auto& s : scores_) s = take(kScoreElements);
    for (auto& p : p_) p = reinterpret_cast<BFloat16*>(take(kScoreElements / 2));
    queries_ = reinterpret_cast<BFloat16*>(take(kAmxQueries * task.depth / 2));
    output_ = take(kAmxQueries * task.depth);
    for (auto& s : sums_) s = take(kAmxQueries * kTile);
    reference_ = take(kAmxQueries);
    factors_ = take(kAmxQueries);
  }

  static size_t scratch_bytes(int64_t depth) {
    const int64_t elements =
        3 * kScoreElements + kAmxQueries * depth / 2 + kAmxQueries * depth + 2 * kAmxQueries * kTile + 2 * kAmxQueries;
    return static_cast<size_t>(elements) * sizeof(float);
  }

  MXLM_TARGET_AMX_BF16 void run() {
    const TileConfig config;
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
    Step current = make_step(task_, task_.begin, 0);
    TileWork begin(task_.order, score_product(current, 0), {});
    while (begin.left() > 0) begin.step();
    Step previous;
    bool have_previous = false;
    bool rescale_previous = false;
    int parity = 0;        // of the step: which scores and P
    int query_parity = 0;  // which sums
    int64_t n = 0;
    for (;;) {
      Step next;
      bool have_next = true;
      if (!current.last) {
        next = make_step(task_, current.query, ++n);
      } else if (current.query + kAmxQueries < task_.end) {
        n = 0;
        next = make_step(task_, current.query + kAmxQueries, 0);
      } else {
        have_next = false;
      }
      if (rescale_previous) rescale(factors_, task_.depth, output_);
      TileWork work(task_.order, have_previous ? value_product(previous, 1 - parity) : Product{},
                    have_next ? score_product(next, 1 - parity) : Product{});
      const Rows rows{scores_[parity], p_[parity], reference_, sums_[query_parity], factors_};
      rescale_previous = soften(rows, current, work);
      if (have_previous && previous.last) store_output(task_, previous.query, sums_[sums_of_previous_], output_);
      sums_of_previous_ = query_parity;
      if (current.last) query_parity = 1 - query_parity;
      previous = current;
      have_previous = true;
      parity = 1 - parity;
      if (!have_next) break;
      current = next;
    }
    if (rescale_previous) rescale(factors_, task_.depth, output_);
    TileWork end(task_.order, value_product(previous, 1 - parity), {});
    while (end.left() > 0) end.step();
    store_output(task_, previous.query, sums_[sums_of_previous_], output_);
    _tile_release();
  }

 private:
  // The softmax of a step, with the tile work spread evenly between its rows; true if the output has to be rescaled
  // before this step's P V is added.
  MXLM_TARGET_AMX_BF16 bool soften(const Rows& rows, const Step& step, TileWork& work) {
    const __m512 scale = _mm512_set1_ps(task_.log2_scale);
    const int64_t total = work.left();
    // The maxima take about the time of four rows of exponentials.
    constexpr int64_t kMaxima = 4;
    const auto left_after = [total](int64_t rows_done) { return total - total * rows_done / (kAmxQueries + kMaxima); };
    while (work.left() > left_after(kMaxima)) work.step();
    bool raised = raise_references(rows, step, 0, scale);
    raised |= raise_references(rows, step, 16, scale);
    for (int64_t i = 0; i < kAmxQueries; ++i) {
      while (work.left() > left_after(kMaxima + i + 1)) work.step();
      exponentials(rows, step, i, scale);
    }
    return raised;
  }

  // Q K^T of a step; the first of its queries brings them.
  Product score_product(const Step& step, int parity) {
    if (step.first) copy_queries(task_, step.query, queries_);
    return {.a = queries_,
            .a_stride = task_.depth,
            .w = task_.keys + step.key * task_.depth,
            .panel = kTile * task_.depth,
            .steps = task_.depth / kPair,
            .pairs = step.keys / kPair,
            .c = scores_[parity],
            .c_stride = kAmxKeys,
            .accumulate = false};
  }

  Product value_product(const Step& step, int parity) const {
    return {.a = p_[parity],
            .a_stride = kAmxKeys,
            .w = task_.values + step.key * task_.depth,
            .panel = kTile * std::min(kAmxKeys, task_.padded_length - step.key),
            .steps = step.keys / kPair,
            .pairs = task_.depth / kPair,
            .c = output_,
            .c_stride = task_.depth,
            .accumulate = !step.first};
  }

  const AmxAttention& task_;
  float* scores_[2];
  BFloat16* p_[2];
  BFloat16* queries_;
  float* output_;
  float* sums_[2];
  float* reference_;
  float* factors_;
  int sums_of_previous_ = 0;
};

}  // namespace

size_t amx_scratch_bytes(int64_t depth) { return Pipeline::scratch_bytes(depth); }

void attend_amx(const AmxAttention& task, std::byte* scratch) {
  assert(task.begin % kAmxQueries == 0 && task.begin < task.end && task.depth % kPair == 0);
  Pipeline(task, scratch).run();
}

}  // namespace mxlm::cpu
