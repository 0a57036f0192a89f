#pragma once

#include <string>
#include <string_view>

namespace mxlm {

/// A name that came from a file, as it may stand in a message: in single quotes, control characters replaced by '?',
/// cut after 120 bytes.
std::string quote(std::string_view name);

}  // namespace mxlm
