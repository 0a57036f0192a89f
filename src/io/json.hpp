#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>

namespace mxlm {

/// Parses JSON that came from the file `name`; `what` says which part of it, for messages ("The index"). The result
/// lives in `parser`. Nesting may be 16 deep. Throws Error naming the file.
simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string_view text, const std::string& name,
                                  const char* what);

}  // namespace mxlm
