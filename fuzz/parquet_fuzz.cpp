// Any bytes as a Parquet file: either an Error or rows. Where the program is built without Arrow, there is nothing to
// find. Arrow's code is not instrumented, so what counts is that it neither crashes nor hands out bytes that are not
// there.
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "io/parquet.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  size_t rows = 0;
  volatile size_t ones = 0;
  try {
    mxlm::read_parquet(mxlm::FileView::from_owned("fuzz", std::vector<std::byte>(bytes, bytes + size)), "text",
                       [&](std::string_view text, std::string_view subset) {
                         for (const char c : text) ones = ones + (c & 1);
                         for (const char c : subset) ones = ones + (c & 1);
                         // Run lengths let a few bytes stand for billions of rows.
                         return ++rows < 10'000;
                       });
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
