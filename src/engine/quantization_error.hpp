#pragma once

// What quantising does to a tensor, and how its values lie: the figures behind a format's loss.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "base/parallel.hpp"
#include "mx/format.hpp"

namespace mxlm {

/// Values before and after quantising, of rows quantised along them.
struct QuantizationError {
  ErrorSums sums;  // reference: before, other: after
  int64_t elements = 0;
  int64_t flushed = 0;  // not zero before, zero after
  // Of formats with block scaling only:
  bool blocks = true;
  int64_t saturated = 0;  // magnitude above the largest element x scale
  int64_t subnormal = 0;  // not zero after, below the smallest normal element x scale (integers have none)
  // Largest - smallest shared exponent of a row's blocks; blocks of zeros or without a scale do not count, nor do rows
  // without any other.
  int64_t rows = 0;
  int64_t spread_sum = 0;
  int spread_max = 0;

  QuantizationError& operator+=(const QuantizationError& more);
};

/// Of one row of a format with block scaling.
QuantizationError row_error(const mx::Format& format, std::span<const float> row);

/// Of one row and what it was quantised to, however that was done.
QuantizationError decoded_row_error(std::span<const float> row, std::span<const float> decoded);

/// Of a matrix in host memory, in a format with block scaling; rows are added in order, so no digit depends on the
/// threads.
QuantizationError matrix_error(const mx::Format& format, const HostMatrix& matrix, ThreadPool& pool);

/// Counts of floor(log2 |x|).
class ExponentHistogram {
 public:
  void add(std::span<const float> values);
  ExponentHistogram& operator+=(const ExponentHistogram& more);

  [[nodiscard]] int64_t zeros() const { return zeros_; }
  [[nodiscard]] int64_t nonfinite() const { return nonfinite_; }
  /// The exponent of counts().front(); 0 if there are none.
  [[nodiscard]] int first() const;
  /// From the smallest exponent that occurs to the largest.
  [[nodiscard]] std::vector<int64_t> counts() const;

 private:
  static constexpr int kSmallest = -149, kLargest = 127;
  std::array<int64_t, kLargest - kSmallest + 1> counts_{};
  int64_t zeros_ = 0, nonfinite_ = 0;
};

/// Of a matrix in host memory.
ExponentHistogram matrix_exponents(const HostMatrix& matrix, ThreadPool& pool);

/// Errors of a replaced Linear under one variant.
struct LinearError {
  std::string tensor, role;
  std::optional<QuantizationError> weight, activation;  // of the sides that are quantised
  /// Of its product against the one of the same (the variant's own) input with neither side quantised, both in float32
  /// before the bias.
  ErrorSums output;
};

/// How the values of a Linear of the baseline lie.
struct LinearExponents {
  std::string tensor, role;
  ExponentHistogram weight;
  std::optional<ExponentHistogram> activation;  // none where no token reached it (an expert)
};

}  // namespace mxlm
