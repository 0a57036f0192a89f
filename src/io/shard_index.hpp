#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace mxlm {

/// Tensor -> shard of a model.safetensors.index.json or pytorch_model.bin.index.json, each the name of a file in the
/// index's folder or a folder below it. Of a name that comes twice the last counts, as in Python. `where` is the
/// index's name. Throws Error naming it.
std::map<std::string, std::string, std::less<>> parse_index(std::string_view text, const std::string& where);

}  // namespace mxlm
