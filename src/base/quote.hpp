#pragma once

#include <string>
#include <string_view>

namespace mxlm {

/// A name that came from a file, as it may stand in a message: in single quotes, control characters replaced by '?',
/// cut after 120 bytes.
std::string quote(std::string_view name);

/// An argument as a POSIX shell reads it back: as it is where nothing in it is special, else in single quotes.
std::string shell_quote(std::string_view argument);

}  // namespace mxlm
