#pragma once

// What quantising does to a tensor, and how the exponents of its values are distributed. These figures explain the loss
// of a format.

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

/// Compares values before and after quantising. Blocks lie along the rows.
struct QuantizationError {
  ErrorSums sums;  // the reference is the value before, the other is the value after
  int64_t elements = 0;
  int64_t flushed = 0;  // elements that become zero
  // The members from here on have a meaning for formats with block scaling only.
  bool blocks = true;
  int64_t saturated = 0;  // elements whose magnitude exceeds the largest element times the scale
  int64_t subnormal =
      0;  // quantised values below the smallest normal element times the scale, except 0; 0 for integers
  // The spread of a row is the largest minus the smallest shared exponent of its blocks. Blocks of zeros and blocks
  // without a scale do not count; `rows` is the number of rows in which another block remains.
  int64_t rows = 0;
  int64_t spread_sum = 0;
  int spread_max = 0;

  QuantizationError& operator+=(const QuantizationError& more);
};

/// The error of one row in a format with block scaling.
QuantizationError row_error(const mx::Format& format, std::span<const float> row);

/// The error of one row from its quantised and decoded values, whatever the format.
QuantizationError decoded_row_error(std::span<const float> row, std::span<const float> decoded);

/// The error of a matrix in host memory, in a format with block scaling. Rows are added in order, so no digit depends
/// on the number of threads.
QuantizationError matrix_error(const mx::Format& format, const HostMatrix& matrix, ThreadPool& pool);

/// Counts of floor(log2 |x|).
class ExponentHistogram {
 public:
  void add(std::span<const float> values);
  ExponentHistogram& operator+=(const ExponentHistogram& more);

  [[nodiscard]] int64_t zeros() const { return zeros_; }
  [[nodiscard]] int64_t nonfinite() const { return nonfinite_; }
  /// The exponent that counts().front() counts; 0 if counts() is empty.
  [[nodiscard]] int first() const;
  /// Counts from the smallest exponent that occurs to the largest.
  [[nodiscard]] std::vector<int64_t> counts() const;

 private:
  static constexpr int kSmallest = -149, kLargest = 127;
  std::array<int64_t, kLargest - kSmallest + 1> counts_{};
  int64_t zeros_ = 0, nonfinite_ = 0;
};

/// The histogram of a matrix in host memory.
ExponentHistogram matrix_exponents(const HostMatrix& matrix, ThreadPool& pool);

/// Errors of a replaced Linear under one variant.
struct LinearError {
  std::string tensor, role;
  std::optional<QuantizationError> weight, activation;  // nullopt for a side that is not quantised
  /// Compares the product with the unquantised product of the same input, which is the variant's own. Both are float32
  /// sums before the bias.
  ErrorSums output;
};

/// How the exponents of a Linear of the baseline are distributed.
struct LinearExponents {
  std::string tensor, role;
  ExponentHistogram weight;
  std::optional<ExponentHistogram> activation;  // nullopt for an expert that no token has reached
};

}  // namespace mxlm
