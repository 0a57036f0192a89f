// Any bytes as a Parquet file: either a Refusal or rows. Where Arrow is missing there is nothing to find. Arrow's code
// is not instrumented, so what counts is that it neither crashes nor hands out bytes that are not there.
#include <cstddef>
#include <cstdint>

#ifdef MXLM_HAVE_ARROW
#include "parquet/rows.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t rows = 0;
  volatile size_t ones = 0;
  try {
    mxlm::parquet_reader::read_rows({reinterpret_cast<const std::byte*>(data), size}, "text",
                                    [&](std::string_view text, std::string_view subset) {
                                      for (const char c : text) ones = ones + (c & 1);
                                      for (const char c : subset) ones = ones + (c & 1);
                                      // Run lengths let a few bytes stand for billions of rows.
                                      return ++rows < 10'000;
                                    });
  } catch (const mxlm::parquet_reader::Refusal&) {
    return 0;
  }
  return 0;
}
#else
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* /*data*/, size_t /*size*/) { return 0; }
#endif
