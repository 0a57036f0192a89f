#include "backend/backend.hpp"

#include <algorithm>
#include <cmath>

namespace mxlm {

double ErrorSums::sqnr_db() const { return 10 * std::log10(reference / difference); }

double ErrorSums::cosine() const {
  const double cosine = (reference + other - difference) / 2 / std::sqrt(reference) / std::sqrt(other);
  return std::isnan(cosine) ? cosine : std::clamp(cosine, -1.0, 1.0);
}

void sum_by_window(std::span<const ErrorSums> rows, std::span<const int64_t> window_offsets,
                   std::span<ErrorSums> sums) {
  for (size_t w = 0; w < sums.size(); ++w) {
    sums[w] = {};
    for (int64_t r = window_offsets[w]; r < window_offsets[w + 1]; ++r) sums[w] += rows[static_cast<size_t>(r)];
  }
}

}  // namespace mxlm
