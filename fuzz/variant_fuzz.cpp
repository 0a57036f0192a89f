// Variant::parse on any bytes: it throws UsageError or gives a variant whose canonical text parses to the same clauses
// and prints back as itself.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.hpp"
#include "eval/variant.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const mxlm::Variant variant = mxlm::Variant::parse(text);
    const std::string canonical = variant.canonical();
    const mxlm::Variant again = mxlm::Variant::parse(canonical);
    require(again.canonical() == canonical && again.name == canonical);
    require(again.clauses.size() == variant.clauses.size());
    for (size_t i = 0; i < variant.clauses.size(); ++i) {
      require(again.clauses[i].target == variant.clauses[i].target);
      require(again.clauses[i].spec == variant.clauses[i].spec);
    }
    for (const char* module : {"model.layers.0.mlp.up_proj", "lm_head"}) {
      require(variant.product(module, mxlm::Role::mlp) == again.product(module, mxlm::Role::mlp));
      require(!variant.product(module, mxlm::Role::router).replaced());
    }
  } catch (const mxlm::UsageError&) {
  }
  try {
    const mxlm::mx::BlockFormat format = mxlm::parse_block_format(text);
    require(mxlm::parse_block_format(mxlm::to_text(mxlm::OperandSpec(format))) == format);
  } catch (const mxlm::UsageError&) {
  }
  return 0;
}
