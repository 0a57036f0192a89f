#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/tokenizer.hpp"

namespace mxlm {

/// The roles that a model's files give to tokens; -1 = nobody has it.
struct SpecialTokens {
  int32_t bos = -1, eos = -1, pad = -1;
};

/// As transformers' tokenizer has them: what tokenizer_config.json says, null meaning that there is none; what
/// config.json says (of a list the first) for a role that the former does not mention. Either text may be empty. Throws
/// Error if one is no JSON object.
SpecialTokens read_special_tokens(std::string_view tokenizer_config, std::string_view config,
                                  const Tokenizer& tokenizer);

}  // namespace mxlm
