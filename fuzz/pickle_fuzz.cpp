// Any bytes as a pickle: either an Error or the descriptions of tensors.
#include <simdjson.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "io/pickle.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& tensor : mxlm::read_state_dict({reinterpret_cast<const char*>(data), size}, "fuzz")) {
      if (tensor.shape.size() != tensor.strides.size() || tensor.storage_bytes < 0) std::abort();
      if (!simdjson::validate_utf8(tensor.name) || !simdjson::validate_utf8(tensor.storage)) std::abort();
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
