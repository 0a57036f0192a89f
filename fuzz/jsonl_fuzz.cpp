// Any bytes as one line of a data set, and as text: either an Error or documents of valid UTF-8.
#include <simdjson.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "io/documents.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  std::string text;
  const bool changed = mxlm::replace_invalid_utf8(line, text);
  if (!simdjson::validate_utf8(text) || changed == simdjson::validate_utf8(line)) std::abort();
  try {
    mxlm::DocumentSource source;
    mxlm::append_json_line(line, "text", "The line", source);
    for (const auto& document : source.documents) {
      if (!simdjson::validate_utf8(document.text) || !simdjson::validate_utf8(document.subset)) std::abort();
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
