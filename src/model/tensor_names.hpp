#pragma once

// Maps names of tensors on disk to names in the model, as transformers 5 does (core_model_loading.py).

#include <string>
#include <string_view>

namespace mxlm {

/// The name of a tensor in a language model, where all names except those of the LM head begin with "PREFIX.". The
/// prefix is added if it is missing, as in a base model's file. It is removed once if it is doubled, and before the LM
/// head.
std::string prefixed(std::string_view name, std::string_view prefix, std::string_view head);

}  // namespace mxlm
