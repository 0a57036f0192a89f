#include "engine/layer_errors.hpp"

namespace mxlm {
LayerErrors::StepSums LayerErrors::of_step(Backend& backend, const std::vector<TreeNode>& level,
                                           const std::vector<std::vector<Tensor>>& hidden,
                                           std::span<const MicroBatch> batches) {
  if (level.size() < 2) return {};
  StepSums out(level.size());
  constexpr size_t baseline = 0;
  size_t windows = 0;
  for (const MicroBatch& batch : batches) windows += static_cast<size_t>(batch.batch.windows());
  for (size_t n = 0; n < level.size(); ++n) {
    if (n == baseline) continue;
    out[n].resize(windows);
    size_t first = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      const auto& offsets = batches[b].batch.offsets;
      backend.compare_windows(hidden[baseline][b], hidden[n][b], offsets,
                              std::span(out[n]).subspan(first, offsets.size() - 1));
      first += offsets.size() - 1;
    }
  }
  return out;
}

std::vector<ErrorSums> LayerErrors::of_window(const VariantTree& tree, const std::vector<StepSums>& round,
                                              size_t variant, size_t window) {
  std::vector<ErrorSums> out(round.size());
  size_t node = tree.leaf[variant];
  for (size_t step = round.size(); step-- > 0; node = tree.levels[step].at(node).parent) {
    if (round[step].empty()) continue;
    const std::vector<ErrorSums>& windows = round[step][node];
    if (!windows.empty()) out[step] = windows[window];
  }
  return out;
}

}  // namespace mxlm
