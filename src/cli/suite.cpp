// mxlm suite: the models of a suite, one after the other.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "cli/eval_options.hpp"
#include "cli/options.hpp"
#include "cli/outputs.hpp"
#include "hub/fetch.hpp"
#include "load/registry.hpp"

namespace mxlm::cli {
namespace {

std::string describe(const std::vector<const RegisteredModel*>& models, const EvalArguments& arguments) {
  const hub::Options options = hub::Options::from_environment();
  std::string out = fmt::format("{:<18}{:<36}{:>10}  {:<6}{}\n", "model", "hub id", "weights", "gated", "in cache");
  double total = 0, missing = 0;
  for (const RegisteredModel* model : models) {
    const auto repo = hub::parse_repo(model->id, hub::RepoKind::model);
    const bool cached = repo && hub::find_model(options, *repo, /*with_tokenizer=*/true).has_value();
    const double gigabytes = static_cast<double>(model->bytes) / 1e9;
    total += gigabytes;
    missing += cached ? 0 : gigabytes;
    out += fmt::format("{:<18}{:<36}{:>7.1f} GB  {:<6}{}\n", model->name, model->id, gigabytes,
                       model->gated ? "yes" : "no", cached ? "yes" : "no");
  }
  out += fmt::format("{} models, {:.1f} GB of weights, {:.1f} GB to download{}\n\nvariants, beside the baseline:\n",
                     models.size(), total, missing, missing > 0 && options.offline ? " (HF_HUB_OFFLINE is set)" : "");
  for (const std::string& variant : arguments.variants) out += fmt::format("  {}\n", variant);
  if (arguments.variants.empty()) out += "  none\n";
  const std::vector<std::string> data = data_names(arguments).empty() ? arguments.text : data_names(arguments);
  out += fmt::format("data: {}\n", data.empty() ? "the embedded text" : fmt::format("{}", fmt::join(data, ", ")));
  return out;
}

}  // namespace

void add_suite(CLI::App& app) {
  struct SuiteArguments : EvalArguments {
    std::string suite;
    bool dry_run = false;
  };
  auto arguments = std::make_shared<SuiteArguments>();
  CLI::App* command = app.add_subcommand("suite", "Evaluate the models of a suite, one after the other");
  command->add_option("SUITE", arguments->suite, "quick, medium, large or full; 'mxlm models' shows what they hold")
      ->required()
      ->type_name("SUITE");
  command->add_flag("--dry-run", arguments->dry_run, "Print the plan: models, sizes, what is in the cache, variants");
  add_eval_options(*command, *arguments);
  command->footer("Example: mxlm suite quick --data pile --max-samples 100 --tier all --dry-run");
  command->callback([command, arguments] {
    if (followed(*arguments)) return;
    const auto models = suite_models(arguments->suite);
    expand_variants(*command, *arguments);
    if (arguments->dry_run) {
      print_result(describe(models, *arguments));
      return;
    }
    std::vector<std::string> names;
    names.reserve(models.size());
    for (const RegisteredModel* model : models) names.emplace_back(model->name);
    Outputs outputs(*arguments, models.size());
    // run_and_report goes on after a failure, so that one gated or large model does not cost hours of work.
    Evaluations(*arguments).run_and_report(names, *arguments, outputs);
  });
}

}  // namespace mxlm::cli
