#include "backend/cpu/gemm_driver.hpp"

#include <algorithm>
#include <vector>

namespace mxlm::cpu {
namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kPanels = 8;

}  // namespace

void gemm(Isa isa, Order order, ThreadPool& pool, int64_t m, DType a_type, const void* a, int64_t a_stride,
          const PackedPanels& w, const TileSink& sink) {
  const int64_t row_blocks = (m + kRows - 1) / kRows;
  const int64_t panel_blocks = (w.panels() + kPanels - 1) / kPanels;
  pool.run(row_blocks * panel_blocks, [&](int64_t task, int /*worker*/) {
    const int64_t r0 = task % row_blocks * kRows;
    const int64_t r1 = std::min(r0 + kRows, m);
    const int64_t p0 = task / row_blocks * kPanels;
    const int64_t p1 = std::min(p0 + kPanels, w.panels());
    thread_local std::vector<float> scratch;
    scratch.resize(kRows * kPanels * kPanel);
    const auto* rows = static_cast<const std::byte*>(a) + r0 * a_stride * static_cast<int64_t>(dtype_size(a_type));
    gemm_tile(isa, order, r1 - r0, a_type, rows, a_stride, w, p0, p1, scratch.data(), kPanels * kPanel);
    sink(r0, r1, p0 * kPanel, std::min(p1 * kPanel, w.n), scratch.data(), kPanels * kPanel);
  });
}

}  // namespace mxlm::cpu
