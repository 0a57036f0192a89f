// mxlm sweep: a grid of formats and their keys, or one Linear, role or layer at a time, in one pass over the model.

#include "eval/sweep.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/eval_options.hpp"
#include "cli/options.hpp"
#include "cli/outputs.hpp"
#include "eval/evaluate.hpp"
#include "eval/load.hpp"
#include "report/sweep_table.hpp"

namespace mxlm::cli {
namespace {

struct SweepArguments {
  EvalArguments eval;
  SweepAxes axes;
  std::string sensitivity;
};

void run_sweep(const SweepArguments& arguments) {
  const auto models = arguments.eval.models.empty() ? std::vector<std::string>{""} : arguments.eval.models;
  const bool grid = arguments.sensitivity.empty();
  // Mistakes of the command line are told before a large data set is read.
  std::vector<std::vector<SweepVariant>> variants;
  if (grid) {
    variants.assign(models.size(), grid_variants(arguments.axes));
  } else {
    const Sensitivity unit = parse_sensitivity(arguments.sensitivity);
    for (const std::string& name : models) {
      variants.push_back(
          sensitivity_variants(arguments.axes, unit, load_model_by_name(name, /*with_tokenizer=*/false).spec));
    }
  }
  Outputs outputs(arguments.eval, models.size() * task_count(arguments.eval));
  std::vector<Task> tasks = read_tasks(arguments.eval, {});
  for (Task& task : tasks) outputs.attach(task.options);

  EvalResult result;
  for (size_t m = 0; m < models.size(); ++m) {
    std::vector<Variant> plain;
    for (const SweepVariant& v : variants[m]) plain.push_back(v.variant);
    for (Task& task : tasks) {
      task.options.variants = plain;
      const std::filesystem::path folder = arguments.eval.journal;
      if (!folder.empty() && models.size() > 1) task.options.journal.folder = folder / fmt::format("model-{}", m + 1);
    }
    EvalResult one = evaluate_models({models[m]}, tasks);
    result.machine = one.machine;
    for (RunResult& run : one.runs) {
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
  SweepAxes& axes = arguments->axes;
  CLI::App* command = app.add_subcommand(
      "sweep", "A grid of formats, blocks, scales, rules and roles, or one Linear at a time, in one pass");
  command->add_option("MODEL,--models", arguments->eval.models,
                      "Folders, hub ids (org/name) or names of 'mxlm models'; none = the embedded booklet-7m");
  command->add_option("--formats", axes.formats, "FORMAT or WEIGHTS/ACTIVATIONS (default: every named format)");
  command->add_option("--blocks", axes.blocks, "Block sizes; 0 is the row (32)");
  command->add_option("--scale-bits", axes.scale_bits, "Bits of a scale (8)");
  command->add_option("--rules", axes.rules, "Scale rules (floor)");
  command->add_option("--rounds", axes.rounds, "Roundings (even)");
  command->add_option("--roles", axes.roles, "Targets, joined by commas where one variant has several (attention,mlp)");
  command->add_flag("--weights-only", axes.weights_only, "Leave activations alone");
  command->add_option("--sensitivity", arguments->sensitivity,
                      "linear, role or layer: one variant for each of these that --roles names");
  command->add_option("--max-variants", axes.max_variants, "Refuse a sweep of more")
      ->check(CLI::Range(size_t{1}, size_t{1} << 20))
      ->capture_default_str();
  add_data_options(*command, arguments->eval);
  add_run_options(*command, arguments->eval);
  command->add_option("--html", arguments->eval.reports.html, "Write the result as one self-contained page here");
  command->add_option("--markdown", arguments->eval.reports.markdown, "Write the table in Markdown here");
  command->add_option("--csv", arguments->eval.reports.csv,
                      "Write the rows as CSV here ('-' is stdout, without the table)");
  command->footer(
      "Example: mxlm sweep ./SmolLM2-135M --windows 16 --formats mxfp4 mxfp6 --blocks 16 32 --rules floor rceil\n"
      "Example: mxlm sweep ./SmolLM2-135M --windows 16 --sensitivity layer --formats mxfp4");
  command->callback([arguments] {
    if (!followed(arguments->eval)) run_sweep(*arguments);
  });
}

}  // namespace mxlm::cli
