#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/report_files.hpp"
#include "eval/evaluate.hpp"

namespace mxlm::cli {

// What the commands that evaluate (eval, suite, sweep) share. They are implemented in eval.cpp.

/// The options of `eval` as they were typed.
struct EvalArguments {
  std::vector<std::string> models, texts, variants, formats, tiers;
  std::string data, field = "text", protocol, bos = "template", dtype = "auto", device = "auto", json, config,
                    per_token;
  bool mlp_only = false, all_linears = false, quantize_outputs = false, no_variants = false, allow_long_context = false,
       stream = false, noise = false, linear_errors = false, exponents = false;
  int64_t context = 0, stride = 0, max_samples = 0, max_windows = 0, batch_size = 0;
  int threads = 0, loader_workers = -1;
  ReportFiles reports;
};

/// What is evaluated: --text, --data, --field, --protocol, --context, --stride, --max-samples, --max-windows, --bos,
/// --allow-long-context.
void add_data_options(CLI::App& command, EvalArguments& arguments);
/// Which variants: --mx, --mx-format, --mlp-only, --all-linears, --tier, --no-variants,
/// --quantize-outputs.
void add_variant_options(CLI::App& command, EvalArguments& arguments);
/// How it runs and where the results go: --noise, --dtype, --device, --batch-size, --stream, --threads,
/// --loader-workers, --json, --per-token, --linear-errors, --exponents, --config.
void add_run_options(CLI::App& command, EvalArguments& arguments);
/// Pages and tables of the result: --html, --csv, --markdown.
void add_report_options(CLI::App& command, EvalArguments& arguments);

/// The variants in the order in which their options were given to `command`; the default one if there are none.
/// Throws UsageError.
std::vector<Variant> collect_variants(const CLI::App& command, const EvalArguments& arguments);

/// Reads what --text or --data name (the embedded text without either), with a warning about invalid UTF-8.
DocumentSource read_data(const EvalArguments& arguments);

/// Everything else that `evaluate` takes, for data read by read_data. Checks --device.
EvaluateOptions evaluate_options(const EvalArguments& arguments, const DocumentSource& data,
                                 std::vector<Variant> variants);

/// Loads and evaluates one model after the other ("" is the embedded one) with a progress line each. Stops after an
/// interrupt, with the last run not complete. With `failed`, a model that cannot be evaluated is told in the log and
/// noted there, and the next one follows; without, its Error ends the run.
EvalResult evaluate_models(const std::vector<std::string>& models, const EvalArguments& arguments,
                           const DocumentSource& data, const EvaluateOptions& options,
                           std::vector<std::string>* failed = nullptr);

/// Prints the table and writes the files that the arguments ask for; throws Interrupted if the last run is not
/// complete.
void report_result(const EvalResult& result, const EvalArguments& arguments);

}  // namespace mxlm::cli
