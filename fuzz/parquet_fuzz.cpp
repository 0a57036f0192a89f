// Any bytes as a Parquet file: either an Error or rows.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.hpp"
#include "io/parquet.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t rows = 0, bytes = 0;
  volatile size_t ones = 0;
  const auto file = mxlm::FileView::from_memory("fuzz", {reinterpret_cast<const std::byte*>(data), size});
  try {
    mxlm::read_parquet(file, "text", [&](std::string_view text, std::string_view subset) {
      for (const char c : text) ones = ones + (c & 1);
      for (const char c : subset) ones = ones + (c & 1);
      // Run lengths let a few bytes stand for billions of rows, and shared prefixes for long texts.
      bytes += text.size() + subset.size();
      return ++rows < 10'000 && bytes < 1'000'000;
    });
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
