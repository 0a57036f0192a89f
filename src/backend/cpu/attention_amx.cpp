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
#include <utility>

#include "backend/cpu/simd/math.hpp"

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

MXLM_TARGET_AMX_BF16 void multiply(Order order, const Product& product) {
  settle_memory();
  const auto a_bytes = static_cast<long>(product.a_stride * 2);
  const auto c_bytes = static_cast<long>(product.c_stride * 4);
  const int64_t direction = order == Order::forward ? 1 : -1;
  const int64_t first = order == Order::forward ? 0 : product.steps - 1;
  const BFloat16* w_pair = product.w + first * kPair * kTile;
  float* c = product.c;
  for (int64_t pair = 0; pair < product.pairs; ++pair) {
    float* c_lower = c + kTile * product.c_stride;
    if (product.accumulate) {
      _tile_loadd(0, c, c_bytes);
      _tile_loadd(1, c + kTile, c_bytes);
      _tile_loadd(2, c_lower, c_bytes);
      _tile_loadd(3, c_lower + kTile, c_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    const BFloat16* a = product.a + first * kPair;
    const BFloat16* w = w_pair;
    for (int64_t step = 0; step < product.steps; ++step) {
      _tile_loadd(6, w, 64);
      _tile_loadd(4, a, a_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, w + product.panel, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a + kTile * product.a_stride, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      a += direction * kPair;
      w += direction * kPair * kTile;
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + kTile, c_bytes);
    _tile_stored(2, c_lower, c_bytes);
    _tile_stored(3, c_lower + kTile, c_bytes);
    c += kPair;
    w_pair += 2 * product.panel;
  }
  settle_memory();
}

/// 32 queries against up to 128 keys.
struct Step {
  int64_t query = 0, key = 0;  // the first
  int64_t keys = 0;            // a multiple of 32
  bool first = false;          // of its queries
  bool diagonal = false;       // row i sees keys - 31 + i keys, else all
  bool masked = false;         // row i sees what a window and a limit of keys leave of that
};

/// The keys that 32 queries see some of, in multiples of 32, and the blocks of kAmxKeys that hold them.
struct Steps {
  int64_t query, low, high;

  Steps(const AmxAttention& task, int64_t q) : query(q) {
    low = task.window == 0 ? 0 : std::max<int64_t>(q - task.window + 1, 0) / kPair * kPair;
    high = std::max(std::min(q + kAmxQueries, round_up(task.key_limit, kPair)), low);
  }
  [[nodiscard]] int64_t first_block() const { return low / kAmxKeys; }
  [[nodiscard]] int64_t count() const { return (high + kAmxKeys - 1) / kAmxKeys - first_block(); }

  [[nodiscard]] Step make(const AmxAttention& task, int64_t n) const {
    const int64_t block = first_block() + (task.order == Order::forward ? n : count() - 1 - n);
    const int64_t last_row = query + kAmxQueries - 1;
    Step step;
    step.query = query;
    step.key = std::max(block * kAmxKeys, low);
    step.keys = std::min((block + 1) * kAmxKeys, high) - step.key;
    step.first = n == 0;
    step.diagonal = step.key + step.keys == query + kAmxQueries;
    step.masked = step.key + step.keys > task.key_limit || (task.window != 0 && step.key < last_row - task.window + 1);
    return step;
  }
};

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

constexpr uint32_t low_bits(int64_t n) {
  if (n <= 0) return 0;
  return n >= kPair ? 0xffffffffU : (uint32_t{1} << n) - 1;
}

/// Which of the 32 keys from `key` on a query sees.
uint32_t seen_mask(const AmxAttention& task, int64_t query, int64_t key) {
  const uint32_t mask = low_bits(std::min(query + 1, task.key_limit) - key);
  return task.window == 0 ? mask : mask & ~low_bits(query - task.window + 1 - key);
}

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

/// The largest lane of each of 16 vectors.
MXLM_TARGET_AMX_BF16 MXLM_INLINE __m512 largest_of_vectors(__m512* m) {
  // Four rounds, each of which halves the vectors and the lanes of a row.
#pragma GCC unroll 8
  for (int64_t i = 0; i < 8; ++i) m[i] = max_of_halves(m[2 * i], m[2 * i + 1]);
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) m[i] = max_of_pairs(m[2 * i], m[2 * i + 1]);
#pragma GCC unroll 2
  for (int64_t i = 0; i < 2; ++i) m[i] = max_of_quarters(m[2 * i], m[2 * i + 1]);
  return max_of_quarters(m[0], m[1]);
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
  return largest_of_vectors(m);
}

/// The same of a masked step.
MXLM_TARGET_AMX_BF16 __m512 largest_of_masked_rows(const AmxAttention& task, const Step& step, const float* scores,
                                                   int64_t row) {
  __m512 m[16];
  for (int64_t i = 0; i < 16; ++i) {
    const float* s = scores + (row + i) * kAmxKeys;
    m[i] = _mm512_set1_ps(-kInfinity);
    for (int64_t j = 0; j < step.keys; j += kPair) {
      const uint32_t mask = seen_mask(task, step.query + row + i, step.key + j);
      m[i] = _mm512_mask_max_ps(m[i], static_cast<__mmask16>(mask), m[i], _mm512_loadu_ps(s + j));
      m[i] = _mm512_mask_max_ps(m[i], static_cast<__mmask16>(mask >> 16), m[i], _mm512_loadu_ps(s + j + 16));
    }
  }
  return largest_of_vectors(m);
}

/// Raises the references of 16 rows, whose largest scores are given, where they have to be; true if anything has to be
/// rescaled. A row that has seen no key yet has a reference of -inf.
MXLM_TARGET_AMX_BF16 MXLM_INLINE bool raise_references(const Rows& rows, const Step& step, int64_t row,
                                                       __m512 largest) {
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
  const __mmask16 started = _mm512_cmp_ps_mask(before, _mm512_set1_ps(-kInfinity), _CMP_NEQ_UQ);
  const __m512 shrunk = _mm512_maskz_mov_ps(started, avx512::exp2_sum(_mm512_sub_ps(before, after)));
  const __m512 factor = _mm512_mask_mov_ps(_mm512_set1_ps(1), raised, shrunk);
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
    const __m512 e0 = avx512::exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), scale, reference));
    const __m512 e1 = avx512::exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + 16), scale, reference));
    sum0 = _mm512_add_ps(sum0, e0);
    sum1 = _mm512_add_ps(sum1, e1);
    const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
    _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
  }
  const uint32_t mask = visible_mask(step.diagonal, i);
  const auto mask0 = static_cast<__mmask16>(mask);
  const auto mask1 = static_cast<__mmask16>(mask >> 16);
  const __m512 e0 =
      _mm512_maskz_mov_ps(mask0, avx512::exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), scale, reference)));
  const __m512 e1 =
      _mm512_maskz_mov_ps(mask1, avx512::exp2_coarse(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + 16), scale, reference)));
  sum0 = _mm512_add_ps(sum0, e0);
  sum1 = _mm512_add_ps(sum1, e1);
  const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
  _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
  _mm512_storeu_ps(sums, _mm512_add_ps(sum0, sum1));
}

/// The same of a masked step.
MXLM_TARGET_AMX_BF16 void masked_exponentials(const AmxAttention& task, const Rows& rows, const Step& step, int64_t i,
                                              __m512 scale) {
  const float* s = rows.scores + i * kAmxKeys;
  BFloat16* p = rows.p + i * kAmxKeys;
  float* sums = rows.sums + i * kTile;
  const __m512 reference = _mm512_set1_ps(rows.reference[i]);
  // In the order of exponentials(): that a window is padded on the right changes no bit of its real rows.
  __m512 sum0 = step.first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums);
  __m512 sum1 = _mm512_setzero_ps();
  for (int64_t j = 0; j < step.keys; j += kPair) {
    const uint32_t mask = seen_mask(task, step.query + i, step.key + j);
    const __m512 x0 = _mm512_fmsub_ps(_mm512_loadu_ps(s + j), scale, reference);
    const __m512 x1 = _mm512_fmsub_ps(_mm512_loadu_ps(s + j + 16), scale, reference);
    const __m512 e0 = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask), avx512::exp2_coarse(x0));
    const __m512 e1 = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask >> 16), avx512::exp2_coarse(x1));
    sum0 = _mm512_add_ps(sum0, e0);
    sum1 = _mm512_add_ps(sum1, e1);
    const __m512bh packed = _mm512_cvtne2ps_pbh(e1, e0);
    _mm512_storeu_si512(p + j, reinterpret_cast<const __m512i&>(packed));
  }
  _mm512_storeu_ps(sums, _mm512_add_ps(sum0, sum1));
}

/// Divides the output of 32 queries by their sums and stores those of this task.
MXLM_TARGET_AMX_BF16 void store_output(const AmxAttention& task, int64_t query, const float* sums,
                                       const float* output) {
  const int64_t rows = std::min(kAmxQueries, task.end - query);
  for (int64_t i = 0; i < rows; ++i) {
    const float sum = _mm512_reduce_add_ps(_mm512_loadu_ps(sums + i * kTile));
    const __m512 factor = _mm512_set1_ps(sum == 0 ? 0 : 1 / sum);  // no key was seen
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

/// Pieces of a thread's scratch memory.
struct Workspace {
  float* scores;
  BFloat16* p;
  BFloat16* queries;
  float* output;
  float* sums;
  float* reference;
  float* factors;

  Workspace(std::byte* scratch, int64_t depth) {
    auto* f = reinterpret_cast<float*>(scratch);
    const auto take = [&f](int64_t elements) { return std::exchange(f, f + elements); };
    scores = take(kScoreElements);
    p = reinterpret_cast<BFloat16*>(take(kScoreElements / 2));
    queries = reinterpret_cast<BFloat16*>(take(kAmxQueries * depth / 2));
    output = take(kAmxQueries * depth);
    sums = take(kAmxQueries * kTile);
    reference = take(kAmxQueries);
    factors = take(kAmxQueries);
  }

  static size_t bytes(int64_t depth) {
    const int64_t elements = 3 * kScoreElements / 2 + 3 * kAmxQueries * depth / 2 + kAmxQueries * (kTile + 2);
    return static_cast<size_t>(elements) * sizeof(float);
  }
};

/// The softmax of a step; rescales the output so far if it has to be.
MXLM_TARGET_AMX_BF16 void soften(const AmxAttention& task, const Step& step, const Workspace& space) {
  if (task.transform.needed()) {
    transform_scores(Isa::amx_bf16, task.transform, step.query, step.key, kAmxQueries, step.keys, space.scores,
                     kAmxKeys);
  }
  const __m512 scale = _mm512_set1_ps(task.transform.needed() ? 1.0F : task.log2_scale);
  const __m512 sink = _mm512_set1_ps(task.log2_sink);
  const Rows rows{space.scores, space.p, space.reference, space.sums, space.factors};
  bool raised = false;
  for (int64_t row = 0; row < kAmxQueries; row += 16) {
    const __m512 largest = step.masked ? largest_of_masked_rows(task, step, space.scores, row)
                                       : largest_of_rows(space.scores, row, step.keys, step.diagonal);
    raised |= raise_references(rows, step, row, _mm512_max_ps(sink, _mm512_mul_ps(largest, scale)));
  }
  if (raised) rescale(space.factors, task.depth, space.output);
  if (step.masked) {
    for (int64_t i = 0; i < kAmxQueries; ++i) masked_exponentials(task, rows, step, i, scale);
  } else {
    for (int64_t i = 0; i < kAmxQueries; ++i) exponentials(rows, step, i, scale);
  }
}

/// Adds the sink's term to the sums of 32 queries whose references are at least the sink.
MXLM_TARGET_AMX_BF16 void add_sinks(const AmxAttention& task, const Workspace& space) {
  for (int64_t i = 0; i < kAmxQueries; i += 16) {
    const __m512 x = _mm512_sub_ps(_mm512_set1_ps(task.log2_sink), _mm512_loadu_ps(space.reference + i));
    _mm512_storeu_ps(space.factors + i, avx512::exp2_sum(x));
  }
  for (int64_t i = 0; i < kAmxQueries; ++i) space.sums[i * kTile] += space.factors[i];
}

MXLM_TARGET_AMX_BF16 void attend_queries(const AmxAttention& task, int64_t query, const Workspace& space) {
  copy_queries(task, query, space.queries);
  const Steps steps(task, query);
  if (steps.count() == 0) {
    std::fill_n(space.output, kAmxQueries * task.depth, 0.0F);
    std::fill_n(space.sums, kAmxQueries * kTile, 0.0F);
  }
  for (int64_t n = 0; n < steps.count(); ++n) {
    const Step step = steps.make(task, n);
    multiply(task.order, {.a = space.queries,
                          .a_stride = task.depth,
                          .w = task.keys + step.key * task.depth,
                          .panel = kTile * task.depth,
                          .steps = task.depth / kPair,
                          .pairs = step.keys / kPair,
                          .c = space.scores,
                          .c_stride = kAmxKeys,
                          .accumulate = false});
    soften(task, step, space);
    const int64_t block = step.key / kAmxKeys * kAmxKeys;
    multiply(task.order, {.a = space.p,
                          .a_stride = kAmxKeys,
                          .w = task.values + block * task.depth + (step.key - block) * kTile,
                          .panel = kTile * std::min(kAmxKeys, task.padded_length - block),
                          .steps = step.keys / kPair,
                          .pairs = task.depth / kPair,
                          .c = space.output,
                          .c_stride = task.depth,
                          .accumulate = !step.first});
  }
  if (task.log2_sink != -kInfinity && steps.count() > 0) add_sinks(task, space);
  store_output(task, query, space.sums, space.output);
}

MXLM_TARGET_AMX_BF16 void attend_all(const AmxAttention& task, const Workspace& space) {
  const TileConfig config;
  __asm__ volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
  for (int64_t query = task.begin; query < task.end; query += kAmxQueries) attend_queries(task, query, space);
  _tile_release();
}

}  // namespace

size_t amx_scratch_bytes(int64_t depth) { return Workspace::bytes(depth); }

void attend_amx(const AmxAttention& task, std::byte* scratch) {
  assert(task.begin % kAmxQueries == 0 && task.begin < task.end && task.depth % kPair == 0);
  attend_all(task, Workspace(scratch, task.depth));
}

}  // namespace mxlm::cpu
