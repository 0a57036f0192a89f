// Any bytes as a LoRA adapter: adapter_config.json, a byte 0xff, and adapter_model.safetensors. Either an Error or an
// adapter whose updates fit the names and shapes that they are asked for.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "model/adapter.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::filesystem::path folder = [] {
    std::string name = (std::filesystem::temp_directory_path() / "mxlm_adapter_fuzz_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    return std::filesystem::path(name);
  }();
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t cut = all.find('\xff');
  std::ofstream(folder / "adapter_config.json", std::ios::binary) << all.substr(0, cut);
  std::ofstream(folder / "adapter_model.safetensors", std::ios::binary)
      << (cut == std::string_view::npos ? std::string_view() : all.substr(cut + 1));
  try {
    const mxlm::Adapter adapter = mxlm::Adapter::open(folder);
    for (const std::string& module : adapter.modules()) {
      for (const int64_t rows : {1, 4}) {
        try {
          const auto update = adapter.update(module, rows, 3);
          if (!update || update->rank < 1) std::abort();
        } catch (const mxlm::Error&) {
          continue;  // another shape, or half an update
        }
      }
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
