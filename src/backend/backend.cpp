#include "backend/backend.hpp"

#include <algorithm>
#include <cmath>

namespace mxlm {

double ErrorSums::sqnr_db() const { return 10 * std::log10(reference / difference); }

double ErrorSums::cosine() const {
  const double cosine = (reference + other - difference) / 2 / std::sqrt(reference) / std::sqrt(other);
  return std::isnan(cosine) ? cosine : std::clamp(cosine, -1.0, 1.0);
}

}  // namespace mxlm
