// mxlm sweep: a grid of formats and their keys, or one Linear, role or layer at a time, in one pass over the model.

#include "variants/sweep.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/eval_options.hpp"
#include "cli/option_rows.hpp"
#include "cli/options.hpp"
#include "cli/outputs.hpp"
#include "load/load.hpp"
#include "report/sweep_table.hpp"
#include "run/ranking.hpp"

namespace mxlm::cli {
namespace {

struct SweepArguments : EvalArguments, SweepAxes {
  std::string sensitivity;
};

const std::vector<api::Option<SweepArguments>>& sweep_option_table() {
  using S = SweepArguments;
  const std::string group = "Variants";
  static const std::vector<api::Option<SweepArguments>> table = {
      {group, "formats", &S::formats, "FORMAT", "FORMAT or WEIGHTS/ACTIVATIONS (default: every named format)", 0, 0, "",
       true},
      {group, "blocks", &S::blocks, "N", "Block sizes; 0 is the whole row (32)", 0, 0, "", true},
      {group, "scale_bits", &S::scale_bits, "N", "Bits of a scale (8)", 0, 0, "", true},
      {group, "rules", &S::rules, "RULE", "Scale rules (floor)", 0, 0, "", true},
      {group, "roundings", &S::roundings, "ROUNDING", "Roundings (even)", 0, 0, "", true, "--rounds"},
      {group, "roles", &S::roles, "ROLES", "Targets; commas join the targets of one variant (attention,mlp)", 0, 0, "",
       true},
      {group, "weights_only", &S::weights_only, "", "Quantise weights only, not activations"},
      {group, "sensitivity", &S::sensitivity, "UNIT",
       "linear, role or layer: one variant for each Linear, role or layer of --roles"},
      {group, "max_variants", &S::max_variants, "N", "Refuse a sweep with more variants", 1, 1 << 20},
  };
  return table;
}

void run_sweep(const SweepArguments& arguments) {
  const std::vector<std::string> models = model_names(arguments);
  // Report mistakes of the command line before a large data set is read.
  std::vector<std::vector<SweepVariant>> variants;
  if (arguments.sensitivity.empty()) {
    variants.assign(models.size(), grid_variants(arguments));
  } else {
    const Sensitivity unit = parse_sensitivity(arguments.sensitivity);
    for (const std::string& name : models) {
      variants.push_back(
          sensitivity_variants(arguments, unit, load_model_by_name(name, /*with_tokenizer=*/false).spec));
    }
  }
  Outputs outputs(arguments, models.size());
  const Evaluations evaluations(arguments);
  EvalResult result;
  for (size_t m = 0; m < models.size(); ++m) {
    EvalArguments one = arguments;
    one.variants.clear();
    for (const SweepVariant& v : variants[m]) one.variants.push_back(v.variant.text());
    if (!one.journal.empty() && models.size() > 1) one.journal /= fmt::format("model-{}", m + 1);
    EvalResult more = evaluations.run({models[m]}, one, outputs);
    result.machine = more.machine;
    for (RunResult& run : more.runs) {
      for (size_t v = 0; v < variants[m].size(); ++v) run.variants[v + 1].sweep = variants[m][v].point;
      rate_points(run);
      result.runs.push_back(std::move(run));
    }
    if (!result.runs.back().complete) break;
  }
  outputs.write(result, {.table = render_sweep_table, .csv = render_sweep_csv});
}

}  // namespace

void add_sweep(CLI::App& app) {
  auto arguments = std::make_shared<SweepArguments>();
  CLI::App* command = app.add_subcommand(
      "sweep", "A grid of formats, blocks, scales, rules and roles, or one Linear at a time, in one pass");
  add_models(*command, *arguments);
  add_options(*command, *arguments, sweep_option_table());
  add_eval_options(*command, *arguments, {"Variants", "Stages of the prototype"});
  command->get_option("--csv")->description("Write the rows as CSV here ('-' is stdout, without the table)");
  command->footer(
      "Example: mxlm sweep ./SmolLM2-135M --windows 16 --formats mxfp4 mxfp6 --blocks 16 32 --rules floor rceil\n"
      "Example: mxlm sweep ./SmolLM2-135M --windows 16 --sensitivity layer --formats mxfp4");
  command->callback([arguments] {
    if (!followed(*arguments)) run_sweep(*arguments);
  });
}

}  // namespace mxlm::cli
