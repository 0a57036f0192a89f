#pragma once

// The special tokens of a model.

#include <cstdint>

namespace mxlm {

/// The token ids of the roles that a model's files name; -1 = no token.
struct SpecialTokens {
  int32_t bos = -1, eos = -1, pad = -1;
};

}  // namespace mxlm
