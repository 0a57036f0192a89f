#include "io/json.hpp"

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {

simdjson::dom::element parse_json(simdjson::dom::parser& parser, std::string_view text, const std::string& name,
                                  const char* what) {
  constexpr size_t kDepth = 16;
  simdjson::dom::element root;
  // allocate() fixes the greatest depth; with too small a capacity parse() would allocate again with the default depth.
  auto error = parser.allocate(text.size() + simdjson::SIMDJSON_PADDING, kDepth);
  if (error == simdjson::SUCCESS) error = parser.parse(text.data(), text.size()).get(root);
  if (error != simdjson::SUCCESS) {
    fail("{} of {} is not valid JSON ({}); get the file again.", what, quote(name), simdjson::error_message(error));
  }
  return root;
}

}  // namespace mxlm
