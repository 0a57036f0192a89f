// Input: the bytes of a tokenizer.json, a byte 0xff, a text.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "text/tokenizer.hpp"
#include "text/unicode.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\xff');
  const std::string text =
      cut == std::string_view::npos ? "the <t> caf\xc3\xa9 12" : mxlm::text::lossy_utf8(input.substr(cut + 1));
  try {
    const auto tokenizer = mxlm::Tokenizer::from_json(input.substr(0, cut), "fuzz");
    const auto ids = tokenizer.encode(text, true);
    for (const int32_t id : ids) {
      if (id < 0) std::abort();
    }
    if (tokenizer.encode(text, true) != ids) std::abort();  // the second time from the cache
    if (!mxlm::text::valid_utf8(tokenizer.decode(ids))) std::abort();
  } catch (const mxlm::Error&) {
    // a sentence for the user
  }
  return 0;
}
