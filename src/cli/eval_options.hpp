#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/prototype_options.hpp"
#include "cli/report_files.hpp"
#include "eval/evaluate.hpp"
#include "library/state.hpp"

namespace mxlm::cli {

// What the commands that evaluate (eval, suite, sweep) share. They are implemented in eval.cpp.

/// The options of `eval` as they were typed.
struct EvalArguments {
  std::vector<std::string> models, texts, data, datasets, variants, formats, tiers;
  std::string field = "text", protocol, bos = "template", dtype = "auto", device = "auto", gemm = "exact", json, config,
              per_token, journal, adapter;
  bool mlp_only = false, all_linears = false, quantize_outputs = false, no_variants = false, allow_long_context = false,
       stream = false, resume = false, no_journal = false, noise = false, jensen_shannon = false, linear_errors = false,
       exponents = false, mixed_ranks = false, shared = false;
  double claim_timeout = 60;
  int64_t context = 0, stride = 0, max_samples = 0, max_windows = 0, windows = 0, batch_size = 0, round_tokens = 0;
  int threads = 0, loader_workers = -1;
  StageArguments stages;
  DeviceArguments devices;
  ReportFiles reports;
};

/// What is evaluated: --text, --data, --datasets, --field, --protocol, --context, --stride, --max-samples,
/// --max-windows, --windows, --bos, --allow-long-context.
void add_data_options(CLI::App& command, EvalArguments& arguments);
/// Which variants: --mx, --mx-format, --mlp-only, --all-linears, --tier, --no-variants,
/// --quantize-outputs, and the prototype's stages.
void add_variant_options(CLI::App& command, EvalArguments& arguments);
/// How it runs and where the results go: --noise, --dtype, --device, --batch-size, --stream, --threads,
/// --loader-workers, --gemm, --min-free-ratio, --workers-per-device, --json, --per-token, --csv-raw,
/// --jensen-shannon,
/// --linear-errors, --exponents,
/// --config.
void add_run_options(CLI::App& command, EvalArguments& arguments);
/// Pages and tables of the result: --html, --csv, --markdown.
void add_report_options(CLI::App& command, EvalArguments& arguments);

/// The variants in the order in which their options were given to `command`; the default one if there are none.
/// Throws UsageError.
std::vector<Variant> collect_variants(const CLI::App& command, const EvalArguments& arguments);

/// A data set, and how to evaluate on it.
struct Task {
  std::optional<api::Data> data;  // never empty once read
  EvaluateOptions options;
  std::string adapter;  // folder, "" = none
  [[nodiscard]] const DocumentSource& source() const { return data->state().source; }
};

/// On a rank that follows: does what rank 0 says until that ends, and keeps the exit code for main; true if it did.
/// Such a command has nothing more to do then.
bool followed(const EvalArguments& arguments);

/// What --data and then --datasets name.
std::vector<std::string> data_names(const EvalArguments& arguments);

/// How many tasks there will be.
size_t task_count(const EvalArguments& arguments);

/// Reads what --text, --data and --datasets name (the embedded text without any), with a warning about invalid UTF-8,
/// and puts everything else that `evaluate` takes beside it, the devices among it.
std::vector<Task> read_tasks(const EvalArguments& arguments, const std::vector<Variant>& variants);

/// What else happened while several runs were on their way.
struct Failures {
  std::vector<std::string> runs;  // those that failed
  bool interrupted = false;       // before the first round of a run
};

/// Loads and evaluates one model after the other ("" is the embedded one), each on all tasks, with a progress line
/// each. Stops after an interrupt, with the last run not complete; a run without a finished round counts as none, and
/// ends in Interrupted, or Error with what stopped it. With `failures`, a run that fails is told in the
/// log and noted there, and the next follows; without, its Error ends all. A mistake of the command line that shows
/// before any run has finished ends all in either case.
EvalResult evaluate_models(const std::vector<std::string>& models, const std::vector<Task>& tasks,
                           Failures* failures = nullptr);

class Outputs;

/// evaluate_models for several, whose failures cost no finished run: writes what there is, then throws one Error for
/// the runs that failed. A single run that fails throws its own.
void evaluate_and_report(const std::vector<std::string>& models, const std::vector<Task>& tasks,
                         const Outputs& outputs);

}  // namespace mxlm::cli
