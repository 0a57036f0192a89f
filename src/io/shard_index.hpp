#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace mxlm {

/// Tensor -> shard of a model.safetensors.index.json or pytorch_model.bin.index.json, each a plain file name in the
/// index's folder. `where` is the index's name. Throws Error naming it.
std::map<std::string, std::string, std::less<>> parse_index(std::string_view text, const std::string& where);

}  // namespace mxlm
