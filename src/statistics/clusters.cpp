#include "statistics/clusters.hpp"

namespace mxlm {
namespace {

/// Numbers the clusters of windows. `begins(w)` says whether window w begins a new cluster.
template <typename Begins>
Clusters numbered(std::span<const Window* const> windows, std::string kind, Begins begins) {
  Clusters out{.kind = std::move(kind), .of = {}, .number = 0};
  out.of.reserve(windows.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    if (w == 0 || begins(w)) ++out.number;
    out.of.push_back(out.number - 1);
  }
  return out;
}

/// Joins neighbouring windows until they have kClusterTokens tokens. Tokens that are left out between windows count,
/// too.
Clusters stretches(std::span<const Window* const> windows) {
  int64_t tokens = 0;
  Clusters out = numbered(windows, "window", [&](size_t w) {
    // The token before the first scored token belongs to the window, so it adds one.
    tokens += static_cast<int64_t>(windows[w - 1]->scored()) + 1 + windows[w]->tokens_left_out;
    if (tokens < kClusterTokens) return false;
    tokens = windows[w]->tokens_left_out;
    return true;
  });
  tokens += windows.empty() ? 0 : static_cast<int64_t>(windows.back()->scored()) + 1;
  if (tokens < kClusterTokens && out.number > 1) {
    --out.number;
    for (size_t& cluster : out.of) cluster = std::min(cluster, out.number - 1);
  }
  if (out.number < windows.size()) out.kind = "window group";
  return out;
}

}  // namespace

Clusters make_clusters(std::span<const Window* const> windows, ClusterUnit unit) {
  switch (unit) {
    case ClusterUnit::document:
      return numbered(windows, "document", [&](size_t w) { return windows[w]->document != windows[w - 1]->document; });
    case ClusterUnit::page:
      return numbered(windows, "page", [&](size_t w) { return windows[w - 1]->note.words > 0; });
    case ClusterUnit::stretch:
      break;
  }
  return stretches(windows);
}

}  // namespace mxlm
