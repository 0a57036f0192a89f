// Any bytes as a zip archive: either an Error or files that lie inside it, none over another.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "io/zip.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = mxlm::FileView::from_owned(
      "fuzz", {reinterpret_cast<const std::byte*>(data), reinterpret_cast<const std::byte*>(data) + size});
  try {
    std::vector<std::pair<size_t, size_t>> extents;
    for (const auto& [name, entry] : mxlm::read_zip(file)) {
      if (entry.offset > size || entry.size > size - entry.offset) std::abort();
      if (entry.size > 0) extents.emplace_back(entry.offset, entry.offset + entry.size);
    }
    std::sort(extents.begin(), extents.end());
    for (size_t i = 1; i < extents.size(); ++i) {
      if (extents[i].first < extents[i - 1].second) std::abort();
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
