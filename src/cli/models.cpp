// mxlm models: the registry of short names.

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "hub/fetch.hpp"
#include "load/registry.hpp"

namespace mxlm::cli {
namespace {

bool is_cached(const hub::Options& options, const RegisteredModel& model) {
  const auto repo = hub::parse_repo(model.id, hub::RepoKind::model);
  return repo && hub::find_model(options, *repo, /*with_tokenizer=*/true).has_value();
}

std::string table(const hub::Options& options) {
  std::string out = fmt::format("{:<18}{:>7}{:>9}  {:<15}{:<6} {:<7}{}\n", "name", "params", "download", "licence",
                                "gated", "suite", "in cache");
  for (const RegisteredModel& model : registered_models()) {
    const auto billions = static_cast<double>(model.parameters) / 1e9;
    out += fmt::format("{:<18}{:>7}{:>9}  {:<15}{:<6} {:<7}{}\n", model.name,
                       billions < 0.95 ? fmt::format("{:.0f}M", billions * 1000) : fmt::format("{:.1f}B", billions),
                       fmt::format("{:.1f} GB", static_cast<double>(model.bytes) / 1e9), model.licence,
                       model.gated ? "yes" : "no", *model.suite == '\0' ? "-" : model.suite,
                       is_cached(options, model) ? "yes" : "no");
  }
  out += "\n";
  for (const RegisteredModel& model : registered_models()) out += fmt::format("{:<18}{}\n", model.name, model.id);
  out +=
      "\nGated: accept the conditions on the model's page, then set HF_TOKEN. The suites\n"
      "quick, medium, large and full each hold the one before. Any other model on the\n"
      "hub goes by its id, org/name[@revision].\n";
  return out;
}

std::string json(const hub::Options& options) {
  auto models = nlohmann::ordered_json::array();
  for (const RegisteredModel& model : registered_models()) {
    models.push_back({{"name", model.name},
                      {"id", model.id},
                      {"family", model.family},
                      {"parameters", model.parameters},
                      {"bytes", model.bytes},
                      {"licence", model.licence},
                      {"gated", model.gated},
                      {"suite", *model.suite == '\0' ? nlohmann::ordered_json(nullptr) : model.suite},
                      {"cached", is_cached(options, model)}});
  }
  return nlohmann::ordered_json{{"schema", "mxlm.models/1"}, {"models", models}}.dump(2) + "\n";
}

}  // namespace

void add_models(CLI::App& app) {
  auto as_json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("models", "List the models that are known by a short name");
  command->add_flag("--json", *as_json, "As JSON");
  command->footer("Example: mxlm models");
  command->callback([as_json] {
    const hub::Options options = hub::Options::from_environment();
    print_result(*as_json ? json(options) : table(options));
  });
}

}  // namespace mxlm::cli
