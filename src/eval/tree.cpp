#include "eval/tree.hpp"

#include <algorithm>

namespace mxlm {

size_t VariantTree::width() const {
  size_t widest = 1;
  for (const auto& level : levels) widest = std::max(widest, level.size());
  return widest;
}

size_t VariantTree::nodes() const {
  size_t n = 0;
  for (const auto& level : levels) n += level.size();
  return n;
}

double VariantTree::forwards() const {
  return levels.empty() ? 0 : static_cast<double>(nodes()) / static_cast<double>(levels.size());
}

VariantTree build_tree(const ModelSpec& model, const ForwardPass& forward, std::span<const Variant> variants) {
  VariantTree tree;
  tree.leaf.assign(variants.size(), 0);
  for (int64_t step = 0; step < forward.steps(); ++step) {
    auto& level = tree.levels.emplace_back();
    const auto linears = forward.step_linears(step);
    for (size_t v = 0; v < variants.size(); ++v) {
      StepProducts products;
      for (const LinearSpec* linear : linears)
        products.linears.push_back(variants[v].product(linear->module, linear->role));
      if (forward.has_attention(step)) {
        products.qk = variants[v].attention_product("qk");
        products.pv = variants[v].attention_product("pv");
      }
      const size_t parent = tree.leaf[v];
      auto node = std::find_if(level.begin(), level.end(),
                               [&](const TreeNode& n) { return n.parent == parent && n.products == products; });
      if (node == level.end()) {
        level.push_back({.parent = parent, .products = std::move(products), .variants = {}});
        node = std::prev(level.end());
      }
      node->variants.push_back(v);
      tree.leaf[v] = static_cast<size_t>(node - level.begin());
    }
  }
  for (const Variant& variant : variants) tree.head.push_back(variant.product(model.head.module, model.head.role));
  return tree;
}

}  // namespace mxlm
