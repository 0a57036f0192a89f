// Variant::parse on any bytes: it throws UsageError or gives a variant whose canonical text parses to the same clauses
// and prints back as itself.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "variants/resolve.hpp"

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
    const std::vector<mxlm::NamedLinear> linears{{"model.layers.0.mlp.up_proj", mxlm::Role::mlp},
                                                 {"model.layers.0.mlp.gate", mxlm::Role::router},
                                                 {"lm_head", mxlm::Role::lm_head}};
    const mxlm::ResolvedVariant resolved = mxlm::resolve(linears, variant), other = mxlm::resolve(linears, again);
    for (size_t l = 0; l < linears.size(); ++l) require(resolved.linear(l) == other.linear(l));
    require(!resolved.linear(1).replaced() && !resolved.head().outputs);
  } catch (const mxlm::UsageError&) {
  }
  try {
    const mxlm::mx::Format format = mxlm::parse_block_format(text);
    require(mxlm::parse_block_format(mxlm::to_text(mxlm::OperandSpec(format))) == format);
  } catch (const mxlm::UsageError&) {
  }
  return 0;
}
