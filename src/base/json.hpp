#pragma once

// JSON as Python's json module reads it, for every file that Python programs write or read: config.json,
// tokenizer_config.json, the index of shards, JSON Lines.

#include <simdjson.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace mxlm {

/// Nesting that parse_json allows unless told otherwise.
inline constexpr size_t kJsonDepth = 64;

/// Parses `text` into `root`, which lives in `parser`. Beyond the JSON standard this takes what Python's json module
/// takes: NaN, Infinity and -Infinity, numbers beyond the range of float64, and integers beyond 64 bits. Such an
/// integer becomes the nearest float64, as Python's float() makes it. What is not finite as a float64 becomes a value
/// that has neither the type of a number nor that of a string, a boolean or an object, so that only a reader who asks
/// for it complains. A UTF-8 byte order mark in front is skipped, as by Python's json.loads from bytes.
simdjson::error_code parse_python_json(simdjson::dom::parser& parser, std::string_view text,
                                       simdjson::dom::element& root, size_t depth = kJsonDepth);

/// As parse_python_json, of JSON that came from the file `name`; `what` says which part of it, for messages ("The
/// index"). Throws Error naming the file.
simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string_view text, const std::string& name,
                                  const char* what, size_t depth = kJsonDepth);

/// The last member called `key`, which is the value that Python's json keeps of several. False if there is none.
bool last_member(const simdjson::dom::object& object, std::string_view key, simdjson::dom::element& value);

}  // namespace mxlm
