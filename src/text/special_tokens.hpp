#pragma once

#include <cstdint>

namespace mxlm {

/// The roles that a model's files give to tokens; -1 = nobody has it.
struct SpecialTokens {
  int32_t bos = -1, eos = -1, pad = -1;
};

}  // namespace mxlm
