#pragma once

// The names of tensors on disk and those of the model, as transformers 5 matches them (core_model_loading.py).

#include <string_view>

#include "io/checkpoint.hpp"

namespace mxlm {

/// A checkpoint under the names of a language model, whose tensors begin with PREFIX. but for those of its head: the
/// prefix is added where it is missing (a base model's file) and stripped once where it is doubled, or in front of the
/// head.
Checkpoint with_prefix(const Checkpoint& checkpoint, std::string_view prefix, std::string_view head);

}  // namespace mxlm
