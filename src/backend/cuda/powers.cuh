#pragma once

// The powers of two that sums of float16 parts are multiplied by (products.hpp).

namespace mxlm::cuda {

/// Powers of rows and of columns; both or none.
struct Powers {
  const float* rows = nullptr;
  const float* columns = nullptr;
};

#if defined(__CUDACC__)

/// sum x row x column, which may be rounded where the result is subnormal, and nowhere before: powers that pull the
/// same way are multiplied one after the other, so that zeros stay zeros; others first with each other.
__device__ inline float times_powers(float sum, float row, float column) {
  return (row < 1) == (column < 1) ? sum * row * column : sum * (row * column);
}

#endif  // __CUDACC__

}  // namespace mxlm::cuda
