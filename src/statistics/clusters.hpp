#pragma once

// Clusters: windows that count as one observation in errors, because tokens near one another are not independent.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "protocols/protocol.hpp"

namespace mxlm {

/// The number of tokens that a cluster of a text should have. Shorter windows are grouped with their neighbours,
/// because the KL divergence correlates over some twenty tokens, and topics correlate over hundreds.
inline constexpr int64_t kClusterTokens = 512;

/// With fewer clusters, an error is itself uncertain by a third or more, and the table says so.
inline constexpr size_t kFewClusters = 8;

/// The cluster of each window.
struct Clusters {
  std::string kind;        // "document", "page", "window", "window group"
  std::vector<size_t> of;  // [window] -> number of its cluster, ascending from 0
  size_t number = 0;
};

/// Makes the clusters of windows, which are in order and may be a part of a run. `unit` says whether a cluster is a
/// document, a page or a stretch of text. A stretch is a window of at least kClusterTokens tokens or a group of shorter
/// windows; a last group that is too small joins the group before it.
Clusters make_clusters(std::span<const Window* const> windows, ClusterUnit unit);

}  // namespace mxlm
