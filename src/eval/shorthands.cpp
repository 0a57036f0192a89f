#include "eval/shorthands.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace mxlm {
namespace {

// Policies, not formats: each names formats by the words of the format table, through the variant grammar.
struct Tier {
  std::string_view name, text;
};
constexpr Tier kTiers[] = {
    {"A", "mlp=mxfp8"},
    {"B", "attention=mxfp8,mlp=mxfp8"},
    {"C", "attention=mxfp8,mlp=mxfp6"},
    {"D", "attention=mxfp6,mlp=mxfp4"},
};

}  // namespace

Variant default_variant() { return Variant::parse("attention=mxfp8,mlp=mxfp8"); }

std::vector<Variant> tier_variants(std::string_view tier) {
  std::vector<Variant> out;
  for (const Tier& t : kTiers) {
    if (tier == t.name || tier == "all") out.push_back(Variant::parse(fmt::format("tier-{}:{}", t.name, t.text)));
  }
  if (out.empty()) fail_usage("There is no tier '{}'; the tiers are A, B, C, D and all.", tier);
  return out;
}

std::vector<Variant> uniform_variants(const std::vector<std::string>& targets,
                                      const std::vector<std::string>& formats) {
  std::vector<Variant> out;
  for (const std::string& format : formats) {
    std::string text;
    for (const std::string& target : targets) text += fmt::format("{}{}={}", text.empty() ? "" : ",", target, format);
    out.push_back(Variant::parse(text));
  }
  return out;
}

}  // namespace mxlm
