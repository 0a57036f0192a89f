#include "backend/cpu/gemm_driver.hpp"

#include <algorithm>
#include <cstddef>

#include "backend/cpu/scratch.hpp"

namespace mxlm::cpu {
namespace {

/// How C is cut: blocks of `rows` x `panels`, the work of one task.
struct Cut {
  int64_t rows, panels;
};

/// Divides `count` into parts of at most `most`, as even as multiples of `unit` allow; returns the size of a part.
int64_t even_part(int64_t count, int64_t most, int64_t unit) {
  const int64_t parts = (count + most - 1) / most;
  return std::min(most, round_up((count + parts - 1) / parts, unit));
}

// The sizes were found by trying, on processors with 2 MiB of second-level cache a core.
Cut choose_cut(Isa isa, int64_t m, DType a_type, const PackedPanels& w, int threads) {
  const int64_t panel_bytes = std::max<int64_t>(w.panel_elements(), 1) * static_cast<int64_t>(dtype_size(w.type));
  const bool tiles = isa == Isa::amx_bf16 && a_type == DType::bf16;
  constexpr int64_t kStaying = 1 << 20;  // bytes of a block of panels that stays in the cache from task to task
  Cut cut{};
  if (tiles && panel_bytes <= kStaying / 16) {
    cut = {32, kStaying / panel_bytes / 2 * 2};
  } else if (tiles) {
    cut = {512, 24};  // too long for that: the block of C stays instead, and panels and A are read chunk by chunk of k
  } else {
    cut = {isa == Isa::avx2 ? 192 : 96, 16};  // AVX2 widens a panel for all rows of a block
  }
  // Whole micro-tiles, and work for every thread.
  const int64_t unit_rows = tiles ? 32 : 12;
  const int64_t unit_panels = tiles ? 2 : 4;
  cut.rows = even_part(m, cut.rows, unit_rows);
  cut.panels = even_part(w.panels(), cut.panels, unit_panels);
  const auto tasks = [&] { return (m + cut.rows - 1) / cut.rows * ((w.panels() + cut.panels - 1) / cut.panels); };
  while (tasks() < int64_t{4} * threads && cut.rows > unit_rows) cut.rows = round_up(cut.rows / 2, unit_rows);
  while (tasks() < int64_t{4} * threads && cut.panels > unit_panels) {
    cut.panels = round_up(cut.panels / 2, unit_panels);
  }
  return cut;
}

}  // namespace

void gemm(Isa isa, Order order, ThreadPool& pool, int64_t m, DType a_type, const void* a, int64_t a_stride,
          const PackedPanels& w, const TileSink& sink) {
  if (m == 0 || w.n == 0) return;
  const Cut cut = choose_cut(isa, m, a_type, w, pool.threads());
  const int64_t row_blocks = (m + cut.rows - 1) / cut.rows;
  const int64_t panel_blocks = (w.panels() + cut.panels - 1) / cut.panels;
  const int64_t stride = cut.panels * kPanel;
  // Ascending tasks go down the rows, so that all threads share a block of panels.
  pool.run(row_blocks * panel_blocks, [&](int64_t task, int /*worker*/) {
    const int64_t r0 = task % row_blocks * cut.rows;
    const int64_t r1 = std::min(r0 + cut.rows, m);
    const int64_t p0 = task / row_blocks * cut.panels;
    const int64_t p1 = std::min(p0 + cut.panels, w.panels());
    thread_local Scratch scratch;
    auto* tile = reinterpret_cast<float*>(scratch.reserve(static_cast<size_t>(cut.rows * stride) * sizeof(float)));
    const auto* rows = static_cast<const std::byte*>(a) + r0 * a_stride * static_cast<int64_t>(dtype_size(a_type));
    gemm_tile(isa, order, r1 - r0, a_type, rows, a_stride, w, p0, p1, tile, stride);
    sink(r0, r1, p0 * kPanel, std::min(p1 * kPanel, w.n), tile, stride);
  });
}

}  // namespace mxlm::cpu
