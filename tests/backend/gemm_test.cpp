#include "backend/cpu/gemm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/gemm_driver.hpp"
#include "base/error.hpp"
#include "base/parallel.hpp"

namespace mxlm::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Kind {
  DType a, w;
};
constexpr Kind kKinds[] = {{DType::bf16, DType::bf16}, {DType::f32, DType::bf16}, {DType::f32, DType::f32}};

std::vector<Isa> available() {
  std::vector<Isa> all;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16}) {
    if (isa <= detect_isa()) all.push_back(isa);
  }
  return all;
}

struct Free {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};

/// Bytes on the heap, 64-aligned, exactly as many as asked for, so that a sanitizer sees a kernel that reads past them.
struct Memory {
  explicit Memory(size_t bytes) : data(::operator new(std::max<size_t>(bytes, 1), std::align_val_t{64})) {
    std::memset(data.get(), 0, bytes);
  }
  std::unique_ptr<void, Free> data;
};

void put(DType type, void* data, int64_t index, float value) {
  if (type == DType::bf16) {
    static_cast<BFloat16*>(data)[index] = to_bfloat16(value);
  } else {
    static_cast<float*>(data)[index] = value;
  }
}

/// A product with its operands as plain float32 (already rounded to their types).
struct Product {
  Kind kind;
  int64_t m, n, k, stride;
  std::vector<float> a, w;
  Memory a_memory, w_memory;
  PackedPanels panels;

  Product(Kind which, int64_t rows, int64_t outputs, int64_t depth, std::vector<float> av, std::vector<float> wv)
      : kind(which),
        m(rows),
        n(outputs),
        k(depth),
        stride(round_up(depth, kDepth)),
        a(std::move(av)),
        w(std::move(wv)),
        a_memory(static_cast<size_t>(m * stride) * dtype_size(kind.a)),
        w_memory(static_cast<size_t>(round_up(n, kPanel) * stride) * dtype_size(kind.w)) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < k; ++j) put(kind.a, a_memory.data.get(), i * stride + j, a[i * k + j]);
    }
    panels = {kind.w, n, k, w_memory.data.get()};
    Memory plain(static_cast<size_t>(n * k) * dtype_size(kind.w));
    for (int64_t i = 0; i < n * k; ++i) put(kind.w, plain.data.get(), i, w[i]);
    for (int64_t p = 0; p < panels.panels(); ++p) {
      const int64_t rows_here = std::min(kPanel, n - p * kPanel);
      if (kind.w == DType::bf16) {
        pack_panel_bf16(detect_isa(), static_cast<BFloat16*>(plain.data.get()) + p * kPanel * k, rows_here, k, k,
                        static_cast<BFloat16*>(w_memory.data.get()) + p * panels.panel_elements());
      } else {
        pack_panel_f32(detect_isa(), static_cast<float*>(plain.data.get()) + p * kPanel * k, rows_here, k, k,
                       static_cast<float*>(w_memory.data.get()) + p * panels.panel_elements());
      }
    }
    if (kind.a == DType::bf16) {
      for (float& x : a) x = to_float(to_bfloat16(x));
    }
    if (kind.w == DType::bf16) {
      for (float& x : w) x = to_float(to_bfloat16(x));
    }
  }

  [[nodiscard]] const void* row(int64_t i) const {
    return static_cast<const std::byte*>(a_memory.data.get()) + static_cast<size_t>(i * stride) * dtype_size(kind.a);
  }

  [[nodiscard]] std::vector<float> compute(Isa isa, Order order, int64_t begin, int64_t end) const {
    const int64_t c_stride = panels.panels() * kPanel;
    std::vector<float> c(static_cast<size_t>((end - begin) * c_stride), -7.0F);
    gemm_tile(isa, order, end - begin, kind.a, row(begin), stride, panels, 0, panels.panels(), c.data(), c_stride);
    std::vector<float> out(static_cast<size_t>((end - begin) * n));
    for (int64_t i = 0; i < end - begin; ++i) std::copy_n(c.data() + i * c_stride, n, out.data() + i * n);
    return out;
  }
  [[nodiscard]] std::vector<float> compute(Isa isa, Order order = Order::forward) const {
    return compute(isa, order, 0, m);
  }
};

std::vector<float> normal(int64_t count, unsigned seed, float mean = 0) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> draw(mean);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& x : values) x = draw(engine);
  return values;
}

Product random_product(Kind kind, int64_t m, int64_t n, int64_t k, unsigned seed) {
  return {kind, m, n, k, normal(m * k, seed), normal(n * k, seed + 1)};
}

/// max |y - y64| / sum |a_k w_k|
double worst_error(const Product& p, const std::vector<float>& y) {
  double worst = 0;
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = 0;
      double magnitude = 0;
      for (int64_t k = 0; k < p.k; ++k) {
        const double term = static_cast<double>(p.a[i * p.k + k]) * static_cast<double>(p.w[j * p.k + k]);
        sum += term;
        magnitude += std::abs(term);
      }
      const double error = std::abs(static_cast<double>(y[i * p.n + j]) - sum);
      if (!(error <= worst * magnitude)) worst = error / magnitude;
    }
  }
  return worst;
}

bool same_bits(const float* x, const float* y, int64_t count) {
  return count == 0 || std::memcmp(x, y, static_cast<size_t>(count) * sizeof(float)) == 0;
}

std::string name(Isa isa, Kind kind) {
  return std::string(isa_name(isa)) + " " + std::string(dtype_name(kind.a)) + " x " + std::string(dtype_name(kind.w));
}

TEST(Gemm, MatchesFloat64OnOddShapes) {
  struct Shape {
    int64_t m, n, k;
  };
  for (const Shape s : {Shape{1, 1, 1}, Shape{1, 17, 31}, Shape{13, 53, 97}, Shape{37, 16, 576}, Shape{5, 33, 131},
                        Shape{64, 64, 64}, Shape{3, 7, 2053}, Shape{33, 95, 257}}) {
    for (const Kind kind : kKinds) {
      const Product p = random_product(kind, s.m, s.n, s.k, 7);
      for (const Isa isa : available()) {
        for (const Order order : {Order::forward, Order::reversed}) {
          EXPECT_LE(worst_error(p, p.compute(isa, order)), 0x1p-22)
              << name(isa, kind) << " " << s.m << "x" << s.n << "x" << s.k;
        }
      }
    }
  }
}

TEST(Gemm, LongSumsStayWithinTheBound) {
  for (const Kind kind : kKinds) {
    const Product p = random_product(kind, 7, 48, 14336, 11);
    for (const Isa isa : available()) EXPECT_LE(worst_error(p, p.compute(isa)), 0x1p-22) << name(isa, kind);
  }
}

TEST(Gemm, SumsOfOneSignStayWithinTheirBound) {
  for (const int64_t k : {576, 1536, 14336}) {
    for (const Kind kind : kKinds) {
      std::vector<float> a = normal(5 * k, 3);
      std::vector<float> w = normal(32 * k, 4);
      for (float& x : a) x = std::abs(x);
      for (float& x : w) x = std::abs(x);
      const Product p(kind, 5, 32, k, a, w);
      for (const Isa isa : available()) EXPECT_LE(worst_error(p, p.compute(isa)), 0x1p-20) << name(isa, kind) << k;
    }
  }
}

/// Every batch of m rows (some m) from some row on gives the rows that the whole product has.
void expect_rows_independent(const Product& p, const std::vector<int64_t>& batches) {
  for (const Isa isa : available()) {
    for (const Order order : {Order::forward, Order::reversed}) {
      const std::vector<float> whole = p.compute(isa, order);
      for (const int64_t m : batches) {
        const int64_t begin = (m * 7) % (p.m - m + 1);  // so that a row's place in its tile differs too
        const std::vector<float> part = p.compute(isa, order, begin, begin + m);
        ASSERT_TRUE(same_bits(part.data(), whole.data() + begin * p.n, m * p.n))
            << name(isa, p.kind) << " " << m << " rows, k " << p.k;
      }
    }
  }
}

TEST(Gemm, RowsHaveTheSameBitsInAnyBatchAndPosition) {
  std::vector<int64_t> all(70);
  std::iota(all.begin(), all.end(), 1);
  for (const Kind kind : kKinds) {
    expect_rows_independent(random_product(kind, 70, 83, 45, 21), all);
    expect_rows_independent(random_product(kind, 70, 19, 200, 22), all);  // more than one chunk of k
  }
  for (const int64_t k : {800, 2400}) {  // more than one chunk of AMX, going on from C and added to it
    expect_rows_independent(random_product({DType::bf16, DType::bf16}, 70, 100, k, 23),
                            {1, 15, 16, 17, 31, 32, 33, 64});
  }
}

TEST(Gemm, RowsHaveTheSameBitsWhenTheyTradePlaces) {
  constexpr int64_t kRows = 45;
  constexpr int64_t kTerms = 150;
  std::vector<float> a = normal(kRows * kTerms, 31);
  const std::vector<float> w = normal(40 * kTerms, 32);
  for (const Kind kind : kKinds) {
    const Product p(kind, kRows, 40, kTerms, a, w);
    std::vector<float> moved(a.size());
    const auto place = [](int64_t i) { return (i * 17 + 5) % kRows; };
    for (int64_t i = 0; i < kRows; ++i) std::copy_n(&a[i * kTerms], kTerms, &moved[place(i) * kTerms]);
    const Product q(kind, kRows, 40, kTerms, moved, w);
    for (const Isa isa : available()) {
      const std::vector<float> c = p.compute(isa);
      const std::vector<float> d = q.compute(isa);
      for (int64_t i = 0; i < kRows; ++i) {
        ASSERT_TRUE(same_bits(&c[i * 40], &d[place(i) * 40], 40)) << name(isa, kind) << " row " << i;
      }
    }
  }
}

TEST(Gemm, PanelsHaveTheSameBitsInAnySplit) {
  constexpr int64_t kRows = 35;
  for (const Kind kind : kKinds) {
    const Product p = random_product(kind, kRows, 150, 200, 5);
    const int64_t panels = p.panels.panels();
    const int64_t wide = panels * kPanel;
    for (const Isa isa : available()) {
      std::vector<float> whole(static_cast<size_t>(kRows * wide));
      gemm_tile(isa, Order::forward, kRows, kind.a, p.row(0), p.stride, p.panels, 0, panels, whole.data(), wide);
      for (int64_t begin = 0; begin < panels; ++begin) {
        for (int64_t end = begin; end <= panels; ++end) {
          const int64_t c_stride = (end - begin) * kPanel + 3;
          std::vector<float> part(static_cast<size_t>(kRows * c_stride), -7.0F);
          gemm_tile(isa, Order::forward, kRows, kind.a, p.row(0), p.stride, p.panels, begin, end, part.data(),
                    c_stride);
          for (int64_t i = 0; i < kRows; ++i) {
            ASSERT_TRUE(same_bits(&part[i * c_stride], &whole[i * wide + begin * kPanel], (end - begin) * kPanel))
                << name(isa, kind) << " " << begin << " " << end;
            for (int64_t j = 1; j <= 3; ++j) ASSERT_EQ(part[(i + 1) * c_stride - j], -7.0F) << "wrote past its outputs";
          }
        }
      }
    }
  }
}

TEST(Gemm, ReversedOrderIsAnotherSummation) {
  const Product p = random_product({DType::bf16, DType::bf16}, 9, 64, 576, 1);
  for (const Isa isa : available()) {
    EXPECT_NE(p.compute(isa, Order::forward), p.compute(isa, Order::reversed)) << isa_name(isa);
  }
}

TEST(Gemm, EmptyProducts) {
  for (const Kind kind : kKinds) {
    const Product empty_sum = random_product(kind, 3, 20, 0, 1);
    const Product no_rows = random_product(kind, 0, 20, 8, 1);
    for (const Isa isa : available()) {
      EXPECT_EQ(empty_sum.compute(isa), std::vector<float>(60, 0.0F));
      EXPECT_TRUE(no_rows.compute(isa).empty());
    }
  }
}

TEST(Gemm, NotANumberAndInfinityStayInTheirRowAndColumn) {
  constexpr int64_t kRows = 19;
  constexpr int64_t kOutputs = 37;
  constexpr int64_t kTerms = 71;
  for (const Kind kind : kKinds) {
    std::vector<float> a(kRows * kTerms, 1.0F);
    std::vector<float> w(kOutputs * kTerms, 1.0F);
    a[3 * kTerms + 70] = kNan;
    a[17 * kTerms + 5] = kInf;
    w[36 * kTerms + 2] = -kInf;
    w[10 * kTerms + 70] = kNan;
    const Product p(kind, kRows, kOutputs, kTerms, a, w);
    for (const Isa isa : available()) {
      const std::vector<float> c = p.compute(isa);
      for (int64_t i = 0; i < kRows; ++i) {
        for (int64_t j = 0; j < kOutputs; ++j) {
          const float y = c[i * kOutputs + j];
          if (i == 3 || j == 10 || (i == 17 && j == 36)) {
            EXPECT_TRUE(std::isnan(y)) << name(isa, kind) << " " << i << " " << j;
          } else if (i == 17) {
            EXPECT_EQ(y, kInf) << name(isa, kind);
          } else if (j == 36) {
            EXPECT_EQ(y, -kInf) << name(isa, kind);
          } else {
            EXPECT_EQ(y, static_cast<float>(kTerms)) << name(isa, kind);
          }
        }
      }
    }
  }
}

TEST(Gemm, OverflowIsInfinity) {
  for (const Kind kind : kKinds) {
    const Product p(kind, 1, 1, 2, {0x1p127F, 0x1p127F}, {1.0F, 1.0F});
    for (const Isa isa : available()) EXPECT_EQ(p.compute(isa)[0], kInf) << name(isa, kind);
  }
}

TEST(Gemm, SubnormalsAreExactOrFlushedAsStated) {
  for (const Kind kind : kKinds) {
    // 2^-130 is a subnormal of both types; 2^-70 * 2^-70 is a subnormal result.
    const Product p(kind, 1, 2, 2, {0x1p-130F, 0x1p-70F}, {1.0F, 0.0F, 0.0F, 0x1p-70F});
    for (const Isa isa : available()) {
      const std::vector<float> c = p.compute(isa);
      const bool flushes = isa >= Isa::avx512_bf16 && kind.a == DType::bf16;
      for (int64_t j = 0; j < 2; ++j) {
        const float exact = j == 0 ? 0x1p-130F : 0x1p-140F;
        EXPECT_LE(std::abs(c[j] - exact), flushes ? 0x1p-126F * (2 + 1) : 0.0F) << name(isa, kind);  // K + |w|
      }
    }
  }
}

TEST(Gemm, PacksTransposedValues) {
  constexpr int64_t kKeys = 45;
  constexpr int64_t kWidth = 24;
  constexpr int64_t kStride = 29;
  std::vector<float> v(kKeys * kStride);
  std::iota(v.begin(), v.end(), 1.0F);
  std::vector<BFloat16> v16(v.size());
  std::transform(v.begin(), v.end(), v16.begin(), to_bfloat16);
  std::vector<float> f32(2 * kPanel * 64, kNan);
  std::vector<BFloat16> bf16(2 * kPanel * 64, to_bfloat16(kNan));
  pack_transposed_f32(v.data(), kKeys, kStride, kWidth, f32.data());
  pack_transposed_bf16(v16.data(), kKeys, kStride, kWidth, bf16.data());
  for (int64_t key = 0; key < 64; ++key) {
    for (int64_t j = 0; j < 32; ++j) {
      const bool inside = key < kKeys && j < kWidth;
      const float expected = inside ? v[key * kStride + j] : 0.0F;
      const int64_t panel = j / 16 * 16 * 64;
      ASSERT_EQ(f32[panel + key * 16 + j % 16], expected);
      ASSERT_EQ(to_float(bf16[panel + key / 2 * 32 + j % 16 * 2 + key % 2]), to_float(to_bfloat16(expected)));
    }
  }
}

TEST(Gemm, PacksPanelsAlikeOnEveryInstructionSet) {
  for (const int64_t k : {1, 31, 32, 33, 100, 576}) {
    for (const int64_t rows : {1, 7, 16}) {
      const int64_t stride = k + 5;
      std::vector<float> x = normal(rows * stride, 9);
      std::vector<BFloat16> x16(x.size());
      std::transform(x.begin(), x.end(), x16.begin(), to_bfloat16);
      const size_t size = static_cast<size_t>(kPanel * round_up(k, kDepth));
      for (const Isa isa : available()) {
        std::vector<float> f32(size, kNan);
        std::vector<BFloat16> bf16(size, to_bfloat16(kNan));
        pack_panel_f32(isa, x.data(), rows, stride, k, f32.data());
        pack_panel_bf16(isa, x16.data(), rows, stride, k, bf16.data());
        for (int64_t i = 0; i < round_up(k, kDepth); ++i) {
          for (int64_t r = 0; r < 16; ++r) {
            const bool inside = r < rows && i < k;
            ASSERT_EQ(f32[i * 16 + r], inside ? x[r * stride + i] : 0.0F) << isa_name(isa);
            ASSERT_EQ(bf16[i / 2 * 32 + r * 2 + i % 2].bits, inside ? x16[r * stride + i].bits : 0) << isa_name(isa);
          }
        }
      }
    }
  }
}

TEST(GemmDriver, GivesEveryElementOnceWithTheBitsOfATile) {
  struct Shape {
    int64_t m, n, k;
  };
  for (const Shape s : {Shape{1, 1, 1}, Shape{131, 577, 70}, Shape{300, 40, 1500}, Shape{65, 1000, 33}, Shape{5, 9, 0},
                        Shape{0, 9, 3}}) {
    for (const Kind kind : kKinds) {
      const Product p = random_product(kind, s.m, s.n, s.k, 17);
      for (const Isa isa : available()) {
        const std::vector<float> expected = p.compute(isa);
        for (const int threads : {1, 2, 3}) {
          ThreadPool pool(threads);
          std::vector<float> c(static_cast<size_t>(s.m * s.n), -7.0F);
          std::vector<uint8_t> seen(c.size());
          gemm(isa, Order::forward, pool, s.m, kind.a, p.row(0), p.stride, p.panels,
               [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1, const float* tile, int64_t stride) {
                 EXPECT_EQ(c0 % kPanel, 0);
                 EXPECT_LT(c0, c1);
                 for (int64_t i = r0; i < r1; ++i) {
                   for (int64_t j = c0; j < c1; ++j) {
                     c[i * s.n + j] = tile[(i - r0) * stride + j - c0];
                     ++seen[i * s.n + j];
                   }
                 }
               });
          EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](uint8_t x) { return x == 1; })) << name(isa, kind);
          EXPECT_TRUE(same_bits(c.data(), expected.data(), s.m * s.n)) << name(isa, kind);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mxlm::cpu
