#pragma once

// Writes logits and hidden states, for users who look at them or compare them with those of another program.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/spec.hpp"
#include "variants/resolve.hpp"

namespace mxlm {

/// Receives values piece by piece: the rows of all windows, one window after the other.
struct LogitsSinks {
  std::function<void(std::span<const float>)> logits;  // [rows, vocabulary]
  /// [rows, hidden]: the embeddings of all windows, then the hidden state of all windows after each layer, before the
  /// final norm. All hidden states come before the first logits. Empty if they are not wanted.
  std::function<void(std::span<const float>)> hidden = {};
};

/// Runs one variant over windows of token ids, with `batch_windows` windows in a micro-batch (0 = chosen from their
/// lengths). Throws Interrupted, and Error; also if a watched file (FileView::watch) has changed by the end.
void hidden_and_logits(const ModelSpec& model, Backend& backend, DType compute, const ResolvedVariant& variant,
                       std::span<const std::vector<int32_t>> windows, int64_t batch_windows, const LogitsSinks& sinks);

}  // namespace mxlm
