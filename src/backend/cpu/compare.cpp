#include "backend/cpu/compare.hpp"

#include <array>
#include <cassert>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/simd/math.hpp"

namespace mxlm {
namespace cpu {
namespace {

constexpr int64_t kLanes = 32;

#define MXLM_ALWAYS_INLINE inline __attribute__((always_inline))

MXLM_ALWAYS_INLINE float load(float x) { return x; }
MXLM_ALWAYS_INLINE float load(BFloat16 x) { return to_float(x); }

/// Partial sums of squares, lane i of 32 those of values i, i + 32, ...
struct Lanes {
  std::array<float, kLanes> reference{}, other{}, difference{};
};

template <typename T>
MXLM_ALWAYS_INLINE void add_values(const T* reference, const T* other, int64_t n, Lanes& lanes) {
  for (int64_t j = 0; j < n; ++j) {
    const auto i = static_cast<size_t>(j);
    const float a = load(reference[j]), b = load(other[j]), d = b - a;
    lanes.reference[i] += a * a;
    lanes.other[i] += b * b;
    lanes.difference[i] += d * d;
  }
}

MXLM_ALWAYS_INLINE double sum(std::array<float, kLanes>& lanes) {
  constexpr size_t folded = 4;
  for (size_t width = lanes.size() / 2; width >= folded; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return (static_cast<double>(lanes[0]) + static_cast<double>(lanes[1])) +
         (static_cast<double>(lanes[2]) + static_cast<double>(lanes[3]));
}

/// Compiled for each instruction set into the same additions in the same order.
template <typename T>
MXLM_ALWAYS_INLINE ErrorSums compare(const T* reference, const T* other, int64_t n) {
  Lanes lanes;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add_values(reference + i, other + i, kLanes, lanes);
  add_values(reference + i, other + i, n - i, lanes);
  return {.reference = sum(lanes.reference), .other = sum(lanes.other), .difference = sum(lanes.difference)};
}

template <typename T>
MXLM_TARGET_AVX2 ErrorSums compare_avx2(const T* reference, const T* other, int64_t n) {
  return compare(reference, other, n);
}
template <typename T>
MXLM_TARGET_AVX512 ErrorSums compare_avx512(const T* reference, const T* other, int64_t n) {
  return compare(reference, other, n);
}

template <typename T>
ErrorSums compare_any(Isa isa, const T* reference, const T* other, int64_t n) {
  if (isa >= Isa::avx512) return compare_avx512(reference, other, n);
  if (isa == Isa::avx2) return compare_avx2(reference, other, n);
  return compare(reference, other, n);
}

}  // namespace

ErrorSums compare_row(Isa isa, const float* reference, const float* other, int64_t n) {
  return compare_any(isa, reference, other, n);
}
ErrorSums compare_row(Isa isa, const BFloat16* reference, const BFloat16* other, int64_t n) {
  return compare_any(isa, reference, other, n);
}

}  // namespace cpu

void CpuBackend::compare(const Tensor& reference, const Tensor& other, std::span<ErrorSums> rows) {
  assert(reference.dtype() == other.dtype() && reference.cols() == other.cols());
  assert(reference.rows() == other.rows() && static_cast<int64_t>(rows.size()) == reference.rows());
  const auto size = static_cast<int64_t>(dtype_size(reference.dtype()));
  for_rows(reference.rows(), 2 * reference.cols() * size, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      auto& out = rows[static_cast<size_t>(r)];
      if (reference.dtype() == DType::bf16) {
        out = cpu::compare_row(isa_, reference.row<BFloat16>(r), other.row<BFloat16>(r), reference.cols());
      } else {
        out = cpu::compare_row(isa_, reference.row<float>(r), other.row<float>(r), reference.cols());
      }
    }
  });
}

void CpuBackend::compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> window_offsets,
                                 std::span<ErrorSums> sums) {
  std::vector<ErrorSums> rows(static_cast<size_t>(reference.rows()));
  compare(reference, other, rows);
  sum_by_window(rows, window_offsets, sums);
}

}  // namespace mxlm
