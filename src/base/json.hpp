#pragma once

// JSON as Python's json module reads it, for every file that Python programs write or read: config.json,
// tokenizer_config.json, the index of shards, JSON Lines.

#include <simdjson.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace mxlm {

/// The nesting that parse_json allows by default.
inline constexpr size_t kJsonDepth = 64;

/// Parses `text` into `root`, which lives in `parser`. Beyond the JSON standard this reads what Python's json module
/// reads: NaN, Infinity, -Infinity, numbers beyond the range of float64, and integers beyond 64 bits. Such an integer
/// becomes the nearest float64, as with Python's float(). A number that is not finite as a float64 becomes a value that
/// is neither a number nor a string, a boolean or an object, so that only a reader who asks for it complains. A UTF-8
/// byte order mark at the start is skipped, as in Python's json.loads of bytes.
simdjson::error_code parse_python_json(simdjson::dom::parser& parser, std::string_view text,
                                       simdjson::dom::element& root, size_t depth = kJsonDepth);

/// Calls parse_python_json for the file `name`. `what` names the part of the file in messages ("The index"). Throws
/// Error naming the file.
simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string_view text, const std::string& name,
                                  const char* what, size_t depth = kJsonDepth);

/// Finds the last member called `key`, which is the member that Python's json keeps. Returns false if there is no such
/// member.
bool last_member(const simdjson::dom::object& object, std::string_view key, simdjson::dom::element& value);

}  // namespace mxlm
