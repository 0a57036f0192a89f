// AVX-512 kernels: float32 multiply-adds and vdpbf16ps. A micro-kernel keeps R rows x P panels of sums in registers for
// one chunk of k, so every output is one chain of operations in the order of k, whatever R and P are.

// GCC 12 takes the deliberately undefined operands inside its own AVX-512 intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "backend/cpu/gemm_kernels.hpp"

#define MXLM_TARGET_F32 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define MXLM_TARGET_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")))

#define MXLM_INLINE inline __attribute__((always_inline))

namespace mxlm::cpu {
namespace {

/// Operands of one micro-kernel call: pairs of k from `a` and `w` on, `direction` pairs apart (1 or -1).
template <typename A, typename W>
struct Strip {
  const A* a;
  int64_t a_stride;
  const W* w;
  int64_t panel_elements;
  int64_t pairs, direction;
  float* c;
  int64_t c_stride;
  bool add;  // to what c holds (every chunk but the first)
};

template <int R, int P>
MXLM_TARGET_F32 MXLM_INLINE void finish(const __m512 (&sum)[R][P], float* c, int64_t c_stride, bool add) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      float* out = c + r * c_stride + p * kPanel;
      _mm512_storeu_ps(out, add ? _mm512_add_ps(_mm512_loadu_ps(out), sum[r][p]) : sum[r][p]);
    }
  }
}

/// The rows of A in groups of three: row r is at group[r / 3] + (r % 3) * stride, which x86 addresses directly, so that
/// one pointer a group is all that moves. The addition is in assembly because GCC would keep the pointers
/// in a vector register, or one offset a row on the stack.
template <int R>
struct RowGroups {
  static constexpr int kCount = (R + 2) / 3;
  const char* group[kCount];

  MXLM_INLINE void start(const void* a, int64_t stride_bytes) {
    for (int g = 0; g < kCount; ++g) group[g] = static_cast<const char*>(a) + int64_t{3} * g * stride_bytes;
  }
  MXLM_INLINE void advance(int64_t bytes) {
#pragma GCC unroll 16
    for (int g = 0; g < kCount; ++g) __asm__("add %1, %0" : "+r"(group[g]) : "r"(bytes) : "cc");
  }
  template <typename T>
  MXLM_INLINE T load(int r, int64_t stride_bytes, int64_t offset) const {
    T value;
    std::memcpy(&value, group[r / 3] + r % 3 * stride_bytes + offset, sizeof value);
    return value;
  }
};

/// A bf16 x W bf16 by vdpbf16ps.
struct DotKernel {
  using A = BFloat16;
  using W = BFloat16;
  static constexpr int kRows = 6;
  static constexpr int kPanels = 4;
  static constexpr bool kPrefetch = true;

  template <int R, int P>
  MXLM_TARGET_BF16 static void run(const Strip<A, W>& s) {
    __m512 sum[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) sum[r][p] = _mm512_setzero_ps();
    }
    const int64_t stride = s.a_stride * static_cast<int64_t>(sizeof(A));
    RowGroups<R> a;
    a.start(s.a, stride);
    const W* w = s.w;
    const int64_t panel_elements = s.panel_elements;
    const int64_t a_step = 2 * s.direction * static_cast<int64_t>(sizeof(A));
    const int64_t w_step = 2 * kPanel * s.direction;
    for (int64_t t = s.pairs; t > 0; --t) {
      __m512i b[P];
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) b[p] = _mm512_loadu_si512(w + p * panel_elements);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        __m512i x = _mm512_set1_epi32(a.template load<int32_t>(r, stride, 0));
        __asm__("" : "+v"(x));  // clang 16 never ends optimising a splat that it sees become bfloat16
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) sum[r][p] = _mm512_dpbf16_ps(sum[r][p], (__m512bh)x, (__m512bh)b[p]);
      }
      a.advance(a_step);
      w += w_step;
    }
    finish<R, P>(sum, s.c, s.c_stride, s.add);
  }
};

/// A f32 x W f32 or bf16 (widened in registers) by float32 multiply-adds.
template <typename Weight>
struct MultiplyAddKernel {
  using A = float;
  using W = Weight;
  static constexpr int kRows = 12;
  static constexpr int kPanels = 2;
  static constexpr bool kPrefetch = false;

  template <int R, int P>
  MXLM_TARGET_F32 static void run(const Strip<A, W>& s) {
    __m512 sum[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) sum[r][p] = _mm512_setzero_ps();
    }
    const int64_t stride = s.a_stride * static_cast<int64_t>(sizeof(A));
    RowGroups<R> a;
    a.start(s.a, stride);
    const W* w = s.w;
    const int64_t panel_elements = s.panel_elements;
    const int64_t a_step = 2 * s.direction * static_cast<int64_t>(sizeof(A));
    const int64_t w_step = 2 * kPanel * s.direction;
    for (int64_t t = s.pairs; t > 0; --t) {
      __m512 even[P];
      __m512 odd[P];
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        if constexpr (sizeof(W) == 2) {
          const __m512i both = _mm512_loadu_si512(w + p * panel_elements);
          even[p] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
          odd[p] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000U))));
        } else {
          even[p] = _mm512_loadu_ps(w + p * panel_elements);
          odd[p] = _mm512_loadu_ps(w + p * panel_elements + kPanel);
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512 x = _mm512_set1_ps(a.template load<float>(r, stride, 0));
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) sum[r][p] = _mm512_fmadd_ps(x, even[p], sum[r][p]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512 x = _mm512_set1_ps(a.template load<float>(r, stride, sizeof(float)));
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) sum[r][p] = _mm512_fmadd_ps(x, odd[p], sum[r][p]);
      }
      a.advance(a_step);
      w += w_step;
    }
    finish<R, P>(sum, s.c, s.c_stride, s.add);
  }
};

template <typename Kernel>
using Run = void (*)(const Strip<typename Kernel::A, typename Kernel::W>&);

template <typename Kernel, int P, int... R>
constexpr std::array<Run<Kernel>, sizeof...(R)> by_rows(std::integer_sequence<int, R...> /*rows*/) {
  return {&Kernel::template run<R + 1, P>...};
}

template <typename Kernel, int... P>
constexpr auto by_panels(std::integer_sequence<int, P...> /*panels*/) {
  return std::array{by_rows<Kernel, P + 1>(std::make_integer_sequence<int, Kernel::kRows>{})...};
}

/// kRuns<Kernel>[panels - 1][rows - 1]
template <typename Kernel>
constexpr auto kRuns = by_panels<Kernel>(std::make_integer_sequence<int, Kernel::kPanels>{});

MXLM_TARGET_F32 void widen_row(const BFloat16* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += 16) {  // chunks are multiples of 32
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm512_storeu_ps(to + i, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
  }
}

/// Brings part `part` of `parts` of `bytes` bytes of each of some panels to the caches.
void prefetch_panels(const void* first, int64_t panel_bytes, int64_t panels, int64_t bytes, int64_t part,
                     int64_t parts) {
  const int64_t begin = bytes / 64 * part / parts * 64;
  const int64_t end = bytes / 64 * (part + 1) / parts * 64;
  for (int64_t p = 0; p < panels; ++p) {
    for (int64_t i = begin; i < end; i += 64) {
      _mm_prefetch(static_cast<const char*>(first) + p * panel_bytes + i, _MM_HINT_T1);
    }
  }
}

/// Runs `Kernel` over a tile; `Source` is the type of A in memory (bf16 is widened for float32 kernels).
template <typename Kernel, typename Source>
void tile(const TileArgs& args) {
  using A = typename Kernel::A;
  using W = typename Kernel::W;
  constexpr bool kWiden = !std::is_same_v<A, Source>;
  alignas(64) std::array<A, kWiden ? Kernel::kRows * kMaxChunk : 1> widened;
  const Chunks chunks{args.depth(), chunk_length(args.w->k), args.order};
  const int64_t panel_bytes = args.w->panel_elements() * static_cast<int64_t>(sizeof(W));
  const int64_t row_groups = (args.m + Kernel::kRows - 1) / Kernel::kRows;
  // A chunk of A stays in the second-level cache while the panels go by, a chunk of panels in the first while the rows
  // do.
  for (int64_t step = 0; step < chunks.count(); ++step) {
    const int64_t begin = chunks.begin(step);
    const int64_t end = chunks.end(step);
    const int64_t first = args.order == Order::forward ? begin : end - 2;
    for (int64_t p = args.panel_begin; p < args.panel_end; p += Kernel::kPanels) {
      const int64_t panels = std::min<int64_t>(Kernel::kPanels, args.panel_end - p);
      const int64_t next_panels = std::clamp<int64_t>(args.panel_end - p - panels, 0, Kernel::kPanels);
      for (int64_t i = 0; i < args.m; i += Kernel::kRows) {
        const int64_t rows = std::min<int64_t>(Kernel::kRows, args.m - i);
        if constexpr (Kernel::kPrefetch) {
          prefetch_panels(args.panel<W>(p + panels) + begin * kPanel, panel_bytes, next_panels,
                          (end - begin) * kPanel * static_cast<int64_t>(sizeof(W)), i / Kernel::kRows, row_groups);
        }
        Strip<A, W> strip{};
        if constexpr (kWiden) {
          for (int64_t r = 0; r < rows; ++r) {
            widen_row(args.row<Source>(i + r) + begin, end - begin, widened.data() + r * kMaxChunk);
          }
          strip.a = widened.data() + (first - begin);
          strip.a_stride = kMaxChunk;
        } else {
          strip.a = args.row<A>(i) + first;
          strip.a_stride = args.a_stride;
        }
        strip.w = args.panel<W>(p) + first * kPanel;
        strip.panel_elements = args.w->panel_elements();
        strip.pairs = (end - begin) / 2;
        strip.direction = args.order == Order::forward ? 1 : -1;
        strip.c = args.c + i * args.c_stride + (p - args.panel_begin) * kPanel;
        strip.c_stride = args.c_stride;
        strip.add = step > 0;
        kRuns<Kernel>[panels - 1][rows - 1](strip);
      }
    }
  }
}

/// out[16 * i + r] = rows[r][i] for the first 16 columns i of 16 rows `stride` apart.
MXLM_TARGET_F32 void transpose16(const std::byte* rows, int64_t stride_bytes, int32_t* out) {
  __m512i x[16];
  __m512i y[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) x[r] = _mm512_loadu_si512(rows + r * stride_bytes);
#pragma GCC unroll 8
  for (int r = 0; r < 16; r += 2) {
    y[r] = _mm512_unpacklo_epi32(x[r], x[r + 1]);
    y[r + 1] = _mm512_unpackhi_epi32(x[r], x[r + 1]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 16; r += 4) {  // x[r + c]: column 4 * lane + c of rows r..r+3
    x[r] = _mm512_unpacklo_epi64(y[r], y[r + 2]);
    x[r + 1] = _mm512_unpackhi_epi64(y[r], y[r + 2]);
    x[r + 2] = _mm512_unpacklo_epi64(y[r + 1], y[r + 3]);
    x[r + 3] = _mm512_unpackhi_epi64(y[r + 1], y[r + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    int32_t* column = out + int64_t{16} * c;                              // and every fourth after it
    const __m512i low_even = _mm512_shuffle_i32x4(x[c], x[c + 4], 0x88);  // lanes 0, 2 of rows 0-3 and 4-7
    const __m512i low_odd = _mm512_shuffle_i32x4(x[c], x[c + 4], 0xdd);
    const __m512i high_even = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(x[c + 8], x[c + 12], 0xdd);
    _mm512_storeu_si512(column, _mm512_shuffle_i32x4(low_even, high_even, 0x88));
    _mm512_storeu_si512(column + 64, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88));
    _mm512_storeu_si512(column + 128, _mm512_shuffle_i32x4(low_even, high_even, 0xdd));
    _mm512_storeu_si512(column + 192, _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd));
  }
}

}  // namespace

void gemm_tile_avx512(DType a_type, const TileArgs& args) {
  if (args.w->type == DType::f32) return tile<MultiplyAddKernel<float>, float>(args);
  if (a_type == DType::f32) return tile<MultiplyAddKernel<BFloat16>, float>(args);
  tile<MultiplyAddKernel<BFloat16>, BFloat16>(args);
}

void gemm_tile_avx512_bf16(const TileArgs& args) { tile<DotKernel, BFloat16>(args); }

void transpose_words_avx512(const void* rows, int64_t stride_bytes, int64_t words, void* panel) {
  const auto* from = static_cast<const std::byte*>(rows);
  auto* to = static_cast<int32_t*>(panel);
  for (int64_t i = 0; i < words; i += 16) transpose16(from + i * 4, stride_bytes, to + i * kPanel);
}

}  // namespace mxlm::cpu
