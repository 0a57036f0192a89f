#pragma once

// The names of tensors on disk and those of the model, as transformers 5 matches them (core_model_loading.py).

#include <string>
#include <string_view>

namespace mxlm {

/// The name of a tensor in a language model, whose names begin with PREFIX. but for those of its head: the prefix is
/// added where it is missing (a base model's file) and stripped once where it is doubled, or in front of the head.
std::string prefixed(std::string_view name, std::string_view prefix, std::string_view head);

}  // namespace mxlm
