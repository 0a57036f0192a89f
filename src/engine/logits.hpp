#pragma once

// Logits and hidden states themselves, for who wants to look at them or compare them with another program's.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "variants/resolve.hpp"

namespace mxlm {

/// Where values go, piece by piece: rows of all windows one after the other.
struct LogitsSinks {
  std::function<void(std::span<const float>)> logits;  // [rows, vocabulary]
  /// [rows, hidden]: the embeddings of all windows, then the state of all after each layer, before the final norm. All
  /// of it comes before the first logits. None = not wanted.
  std::function<void(std::span<const float>)> hidden = {};
};

/// Runs one variant over windows of token ids, `batch_windows` a micro-batch (0 = chosen). Throws Error, also if
/// watched files (FileView::watch) have changed by the end, and Interrupted.
void hidden_and_logits(const ModelSpec& model, Backend& backend, DType compute, const ResolvedVariant& variant,
                       std::span<const std::vector<int32_t>> windows, int64_t batch_windows, const LogitsSinks& sinks);

}  // namespace mxlm
