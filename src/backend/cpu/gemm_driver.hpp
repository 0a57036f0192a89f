#pragma once

// Whole matrix products on a thread pool, tile by tile, with what follows the product done while a tile is in the
// cache.

#include <cstdint>
#include <functional>

#include "backend/cpu/gemm.hpp"
#include "base/parallel.hpp"

namespace mxlm::cpu {

/// Receives a finished tile of C: rows [r0, r1), outputs [c0, c1), element (i, j) at tile[(i - r0) * stride + j - c0].
/// c0 is a multiple of 16. Called once for every element of C, from any thread of the pool, for several tiles at once.
/// The memory belongs to the driver and is reused once the sink returns.
using TileSink = std::function<void(int64_t r0, int64_t r1, int64_t c0, int64_t c1, const float* tile, int64_t stride)>;

/// C[m, w.n] = A[m, w.k] * W^T, handed to `sink` in tiles. A as gemm_tile wants it. The bits of an element are those of
/// gemm_tile, whatever the pool and the tiles. With k = 0 the sink sees zeros; with m = 0 or n = 0 it is not called.
void gemm(Isa isa, Order order, ThreadPool& pool, int64_t m, DType a_type, const void* a, int64_t a_stride,
          const PackedPanels& w, const TileSink& sink);

}  // namespace mxlm::cpu
