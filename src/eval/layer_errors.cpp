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

LayerErrors::LayerErrors(Backend& backend, const VariantTree& tree) : backend_(backend), tree_(tree) {
  for (const auto& level : tree.levels) total_.emplace_back(level.size());
  round_ = total_;
}

void LayerErrors::add_step(size_t step, const std::vector<std::vector<Tensor>>& hidden) {
  const auto& level = tree_.levels[step];
  if (level.size() < 2) return;  // nobody has left the baseline
  const size_t baseline = node_of(level, 0);
  for (size_t b = 0; b < hidden[baseline].size(); ++b) {
    const Tensor& reference = hidden[baseline][b];
    rows_.resize(static_cast<size_t>(reference.rows()));
    for (size_t n = 0; n < level.size(); ++n) {
      if (n == baseline) continue;
      backend_.compare(reference, hidden[n][b], rows_);
      for (const ErrorSums& row : rows_) round_[step][n] += row;
    }
  }
}

void LayerErrors::commit_round() { total_ = round_; }

void LayerErrors::drop_round() { round_ = total_; }

std::vector<ErrorSums> LayerErrors::of_variant(size_t variant) const {
  std::vector<ErrorSums> out;
  for (size_t step = 0; step < total_.size(); ++step) {
    out.push_back(total_[step][node_of(tree_.levels[step], variant)]);
  }
  return out;
}

}  // namespace mxlm
