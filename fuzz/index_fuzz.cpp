// Any bytes as the index of a checkpoint's shards: either an Error, or names of files in its own folder or below it.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/error.hpp"
#include "io/shard_index.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto shards = mxlm::parse_index(text, "fuzz");
    if (shards.empty()) std::abort();
    for (const auto& [tensor, shard] : shards) {
      // Independent of the rule that parse_index keeps: where a path walk would end.
      const auto path = (std::filesystem::path("/root") / shard).lexically_normal();
      const auto inside = path.lexically_relative("/root");
      if (inside.empty() || inside == "." || *inside.begin() == ".." || !path.has_filename()) std::abort();
      if (shard.find('\0') != shard.npos) std::abort();
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
