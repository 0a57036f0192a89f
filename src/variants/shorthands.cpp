#include "variants/shorthands.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "base/suggest.hpp"

namespace mxlm {
namespace {

// Each tier is a policy in the variant grammar, whose words for formats are those of the format table.
struct Tier {
  std::string_view name, text;
};
constexpr Tier kTiers[] = {
    {"A", "mlp=mxfp8"},
    {"B", "attention=mxfp8,mlp=mxfp8"},
    {"C", "attention=mxfp8,mlp=mxfp6"},
    {"D", "attention=mxfp6,mlp=mxfp4"},
};

struct PrototypeStage {
  PipelineStage stage;
  std::string_view name, format;
};
constexpr PrototypeStage kPrototypeStages[] = {
    {PipelineStage::bf16, "bf16", "bf16"},
    {PipelineStage::bfp16, "bfp16", "bfp16"},
    {PipelineStage::int8, "int8", "llm_int8"},
    {PipelineStage::fp8_emulation, "fp8-emulation", "fp8_e4m3_own_exponent"},
    {PipelineStage::fp8_emulation, "fp8-unscaled", "fp8_e4m3_unscaled"},
    {PipelineStage::fp8_backend, "fp8-backend", "fp8_e4m3_tensor"},
};

std::string uniform_text(const std::vector<std::string>& targets, std::string_view format) {
  std::string text;
  for (const std::string& target : targets) text += fmt::format("{}{}={}", text.empty() ? "" : ",", target, format);
  return text;
}

}  // namespace

Variant default_variant() { return Variant::parse("attention=mxfp8,mlp=mxfp8"); }

std::vector<Variant> tier_variants(std::string_view tier) {
  std::vector<Variant> out;
  for (const Tier& t : kTiers) {
    if (tier == t.name || tier == "all") out.push_back(Variant::parse(fmt::format("tier-{}:{}", t.name, t.text)));
  }
  if (out.empty()) {
    fail_usage("There is no tier '{}'; the tiers are {}.{}", tier, fmt::join(tier_names(), ", "),
               suggestion(tier, tier_names()));
  }
  return out;
}

const std::vector<std::string>& tier_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const Tier& t : kTiers) out.emplace_back(t.name);
    out.emplace_back("all");
    return out;
  }();
  return names;
}

std::vector<Variant> stage_variants(PipelineStage stage, const std::vector<std::string>& targets) {
  std::vector<Variant> out;
  for (const PrototypeStage& s : kPrototypeStages) {
    if (s.stage != stage) continue;
    out.push_back(Variant::parse(fmt::format("{}:{}", s.name, uniform_text(targets, s.format))));
  }
  return out;
}

std::vector<Variant> uniform_variants(const std::vector<std::string>& targets,
                                      const std::vector<std::string>& formats) {
  std::vector<Variant> out;
  out.reserve(formats.size());
  for (const std::string& format : formats) out.push_back(Variant::parse(uniform_text(targets, format)));
  return out;
}

}  // namespace mxlm
