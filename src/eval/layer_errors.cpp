#include "eval/layer_errors.hpp"

#include <algorithm>
#include <cassert>

namespace mxlm {
namespace {

size_t node_of(const std::vector<TreeNode>& level, size_t variant) {
  const auto node = std::find_if(level.begin(), level.end(), [&](const TreeNode& n) {
    return std::find(n.variants.begin(), n.variants.end(), variant) != n.variants.end();
  });
  assert(node != level.end());
  return static_cast<size_t>(node - level.begin());
}

}  // namespace

LayerErrors::StepSums LayerErrors::of_step(Backend& backend, const std::vector<TreeNode>& level,
                                           const std::vector<std::vector<Tensor>>& hidden,
                                           std::span<const MicroBatch> batches) {
  if (level.size() < 2) return {};
  StepSums out(level.size());
  const size_t baseline = node_of(level, 0);
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
  for (size_t step = 0; step < round.size(); ++step) {
    if (round[step].empty()) continue;
    const std::vector<ErrorSums>& windows = round[step][node_of(tree.levels[step], variant)];
    if (!windows.empty()) out[step] = windows[window];
  }
  return out;
}

}  // namespace mxlm
