#include "backend/backend.hpp"

#include <algorithm>
#include <cmath>

namespace mxlm {

double ErrorSums::sqnr_db() const { return 10 * std::log10(reference / difference); }

double ErrorSums::cosine() const {
  const double cosine = (reference + other - difference) / 2 / std::sqrt(reference) / std::sqrt(other);
  return std::isnan(cosine) ? cosine : std::clamp(cosine, -1.0, 1.0);
}

void Backend::compare_windows(const Tensor& reference, const Tensor& other, std::span<const int64_t> windows,
                              std::span<ErrorSums> sums) {
  std::vector<ErrorSums> rows(static_cast<size_t>(reference.rows()));
  compare(reference, other, rows);
  for (size_t w = 0; w + 1 < windows.size(); ++w) {
    sums[w] = {};
    for (int64_t r = windows[w]; r < windows[w + 1]; ++r) sums[w] += rows[static_cast<size_t>(r)];
  }
}

}  // namespace mxlm
