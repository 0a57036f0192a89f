#include "engine/tree.hpp"

#include <algorithm>
#include <unordered_map>

#include "variants/spec_hash.hpp"

namespace mxlm {
namespace {

size_t hash_of_node(size_t parent, const StepProducts& products) {
  size_t out = combine_hashes({parent, hash_of(products.qk), hash_of(products.pv)});
  for (const ProductSpec& product : products.linears) out = combine_hashes({out, hash_of(product)});
  return out;
}

}  // namespace

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

VariantTree build_tree(const ModelSpec& model, std::span<const ResolvedVariant> variants) {
  VariantTree tree;
  tree.leaf.assign(variants.size(), 0);
  for (const Step& step : steps_of(model)) {
    auto& level = tree.levels.emplace_back();
    std::unordered_multimap<size_t, size_t> nodes;  // by hash
    for (size_t v = 0; v < variants.size(); ++v) {
      StepProducts products;
      products.linears.reserve(step.linears.size());
      for (size_t l = 0; l < step.linears.size(); ++l) {
        products.linears.push_back(variants[v].linear(step.first_linear + l));
      }
      if (step.attention) {
        products.qk = variants[v].qk;
        products.pv = variants[v].pv;
      }
      const size_t parent = tree.leaf[v];
      const size_t hash = hash_of_node(parent, products);
      const auto [begin, end] = nodes.equal_range(hash);
      const auto found = std::find_if(begin, end, [&](const auto& entry) {
        return level[entry.second].parent == parent && level[entry.second].products == products;
      });
      const size_t node = found == end ? level.size() : found->second;
      if (found == end) {
        nodes.emplace(hash, node);
        level.push_back({.parent = parent, .products = std::move(products), .variants = {}});
      }
      level[node].variants.push_back(v);
      tree.leaf[v] = node;
    }
  }
  for (const ResolvedVariant& variant : variants) tree.lm_head.push_back(variant.head());
  return tree;
}

}  // namespace mxlm
