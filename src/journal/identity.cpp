#include "journal/identity.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "mxlm.journal/1";
constexpr size_t kMostBytes = size_t{64} << 20;
constexpr int kMostDepth = 16;

}  // namespace

JournalPlan parse_journal_plan(std::string_view text, const std::string& name) {
  const auto broken = [&name](const char* why) {
    fail("{} cannot be used ({}); name another folder with --journal.", quote(name), why);
  };
  if (text.size() > kMostBytes) broken("it is too large");
  // The parser drops deeper values; the checks below then miss them.
  const auto depth_limit = [](int depth, json::parse_event_t, json&) { return depth < kMostDepth; };
  const json plan = json::parse(text, depth_limit, /*allow_exceptions=*/false);
  if (!plan.is_object()) broken("it is not a JSON object");
  if (plan.value("schema", json()) != kSchema) broken("another version of mxlm wrote it");
  const json stored = plan.value("facts", json()), passes = plan.value("segments", json());
  if (!stored.is_object() || !passes.is_array()) broken("parts of it are missing");
  JournalPlan out;
  for (const auto& [fact, value] : stored.items()) {
    if (!value.is_string()) broken("a fact is not a text");
    out.facts.emplace(fact, value.get<std::string>());
  }
  // Version 0.1 wrote its number only as a fact.
  const auto fact = out.facts.find("version");
  const json writer = plan.value("written_by", json(fact != out.facts.end() ? fact->second : "unknown"));
  if (!writer.is_string()) broken("its version is not a text");
  out.written_by = writer.get<std::string>();
  for (const json& pass : passes) {
    if (!pass.is_array() || pass.empty()) broken("a list of variants is empty or not a list");
    auto& variants = out.passes.emplace_back();
    for (const json& variant : pass) {
      if (!variant.is_string()) broken("a variant is not a text");
      variants.push_back(variant.get<std::string>());
    }
    if (!variants.front().empty()) broken("a list of variants does not begin with the baseline");
  }
  return out;
}

std::string journal_plan_text(const JournalPlan& plan, size_t windows) {
  const json out = {{"schema", kSchema},
                    {"written_by", plan.written_by},
                    {"facts", plan.facts},
                    {"windows", windows},
                    {"segments", plan.passes}};
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace mxlm
