#pragma once

// The index of a checkpoint in several files.

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace mxlm {

/// Reads which shard holds each tensor from a model.safetensors.index.json or pytorch_model.bin.index.json. A shard is
/// a file in the folder of the index or in a folder below it. If a tensor occurs twice, the last entry counts, as in
/// Python. Messages name the index `where`. Throws Error.
std::map<std::string, std::string, std::less<>> parse_index(std::string_view text, const std::string& where);

}  // namespace mxlm
