#pragma once

// Which windows count as one observation when errors are made: tokens near one another are not independent.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "protocols/protocol.hpp"

namespace mxlm {

/// Shorter windows are grouped with their neighbours until a cluster has as many tokens: KL divergence of neighbouring
/// tokens correlates over some twenty tokens, and topics over hundreds.
inline constexpr int64_t kClusterTokens = 512;

/// Below so many clusters an error is itself known to a third at best, and the table says so.
inline constexpr size_t kFewClusters = 8;

struct Clusters {
  std::string kind;        // "document", "page", "window", "window group"
  std::vector<size_t> of;  // of each window, ascending from 0
  size_t number = 0;
};

/// Clusters of windows, which are in order and may be some of a run's only: documents or pages as `unit` says; of a
/// text each window of kClusterTokens tokens or more, and groups of shorter ones. A group that is too small at the end
/// belongs to the one before it.
Clusters make_clusters(std::span<const Window* const> windows, ClusterUnit unit);

}  // namespace mxlm
