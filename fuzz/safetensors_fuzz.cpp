// Any bytes as a safetensors file: either an Error or tensors that lie inside it.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/error.hpp"
#include "io/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  try {
    mxlm::UnreadTensors unread;
    const auto tensors =
        mxlm::read_safetensors(mxlm::FileView::from_owned("fuzz", std::vector<std::byte>(bytes, bytes + size)), unread);
    for (const auto& [name, reason] : unread) {
      if (tensors.contains(name) || reason.empty()) std::abort();
    }
    size_t total = 0;
    for (const auto& [name, tensor] : tensors) {
      // Reads every byte, so that the sanitizers see a tensor that reaches outside.
      for (size_t i = 0; i < tensor.size; ++i) total += std::to_integer<size_t>(tensor.data()[i]) & 1;
      if (tensor.size != static_cast<size_t>(tensor.elements()) * mxlm::dtype_size(tensor.type)) std::abort();
      total += tensor.size;
    }
    if (total > 2 * size) std::abort();
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
