// Sums over rows of two tensors against long double.
#include "backend/cpu/compare.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "backend/cpu/backend.hpp"

namespace mxlm {
namespace {

using cpu::Isa;

template <typename T>
T make(float x) {
  if constexpr (sizeof(T) == 2) {
    return to_bfloat16(x);
  } else {
    return x;
  }
}
float value(float x) { return x; }
float value(BFloat16 x) { return to_float(x); }

template <typename T>
void check(int64_t n) {
  std::mt19937 random(static_cast<uint32_t>(n));
  std::normal_distribution<float> normal;
  std::vector<T> a, b;
  long double aa = 0, bb = 0, dd = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float x = normal(random);
    a.push_back(make<T>(x));
    b.push_back(make<T>(x + 0.1F * normal(random)));
    const long double p = value(a.back()), q = value(b.back());
    aa += p * p;
    bb += q * q;
    dd += (q - p) * (q - p);
  }
  const ErrorSums portable = cpu::compare_row(Isa::portable, a.data(), b.data(), n);
  // float32 sums of at most n / 32 terms, then a few more.
  const double tolerance = (static_cast<double>(n) / 32 + 12) * 0x1p-24;
  EXPECT_NEAR(portable.reference, static_cast<double>(aa), tolerance * static_cast<double>(aa)) << n;
  EXPECT_NEAR(portable.other, static_cast<double>(bb), tolerance * static_cast<double>(bb)) << n;
  EXPECT_NEAR(portable.difference, static_cast<double>(dd), tolerance * static_cast<double>(dd)) << n;
  for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16}) {
    if (isa > cpu::detect_isa()) break;
    EXPECT_EQ(cpu::compare_row(isa, a.data(), b.data(), n), portable) << n;  // the same bits
  }
}

TEST(Compare, EveryLengthOnEveryInstructionSet) {
  for (const int64_t n : {0, 1, 31, 32, 33, 63, 64, 95, 576, 1000}) {
    check<float>(n);
    check<BFloat16>(n);
  }
}

TEST(Compare, RowsOfTensors) {
  const auto backend = make_cpu_backend({.threads = 2, .isa = std::nullopt, .order = cpu::Order::forward});
  const std::vector<float> a{1, 2, 3, 4, 5, 6}, b{1, 2, 3, 5, 5, 4};
  const auto upload = [&](const std::vector<float>& values) {
    return backend->upload({.type = DType::f32,
                            .rows = 2,
                            .cols = 3,
                            .stride = 3,
                            .data = reinterpret_cast<const std::byte*>(values.data())},
                           DType::bf16);
  };
  std::vector<ErrorSums> rows(2);
  backend->compare(upload(a), upload(b), rows);
  EXPECT_EQ(rows[0], (ErrorSums{.reference = 14, .other = 14, .difference = 0}));
  EXPECT_EQ(rows[1], (ErrorSums{.reference = 77, .other = 66, .difference = 5}));
  EXPECT_EQ(rows[0].sqnr_db(), std::numeric_limits<double>::infinity());
  EXPECT_EQ(rows[0].cosine(), 1);
  EXPECT_NEAR(rows[1].sqnr_db(), 10 * std::log10(77.0 / 5), 1e-12);
  EXPECT_NEAR(rows[1].cosine(), 69 / std::sqrt(77.0 * 66), 1e-12);
  EXPECT_TRUE(std::isnan(ErrorSums{}.cosine()));
}

}  // namespace
}  // namespace mxlm
