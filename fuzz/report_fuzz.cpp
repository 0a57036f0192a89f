// Results that someone sends: reading one and making a page, CSV and Markdown of it ends in those or in an Error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.hpp"
#include "report/page.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    // Asking for the memory takes longer than most inputs.
    mxlm::report::Record record{.files = {}, .runs = {}, .limits = mxlm::report::limits_of(uint64_t{1} << 30)};
    mxlm::report::add_json(record, "fuzz.json", {reinterpret_cast<const char*>(data), size});
    mxlm::report::render_html(record);
    mxlm::report::render_csv(record);
    mxlm::report::render_markdown(record);
  } catch (const mxlm::Error&) {
  }
  return 0;
}
