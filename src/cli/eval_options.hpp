#pragma once

// The options and the evaluation that the commands eval, suite and sweep share.

#include <CLI/CLI.hpp>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "cli/report_files.hpp"
#include "library/state.hpp"
#include "mxlm/options.hpp"
#include "run/results.hpp"

namespace mxlm::cli {

/// The options of an evaluation, and the options that only commands have.
struct EvalArguments : api::EvaluateOptions, ReportFiles {
  std::vector<std::string> models, text, data, datasets;
  std::string adapter;  // a folder, "" = no adapter
  // Shorthands of variants.
  std::vector<std::string> mx_format, tier;
  bool mlp_only = false, all_linears = false, quantize_outputs = false, no_variants = false;
  // The stages of the Python prototype.
  bool full_pipeline = false, skip_mx = false, skip_bf16 = false, skip_bfp16 = false, skip_int8 = false,
       skip_nvfp8_emulation = false, skip_nvfp8_backend = false;
  bool no_journal = false, mixed_ranks = false;
  std::string json, per_token, config;
};

/// The table of the options that only commands have.
const std::vector<api::Option<EvalArguments>>& command_option_table();

/// Adds MODEL... and --adapter.
void add_models(CLI::App& command, EvalArguments& arguments);

/// Adds all options of both tables, except those of the groups `without`.
void add_eval_options(CLI::App& command, EvalArguments& arguments,
                      std::initializer_list<std::string_view> without = {});

/// Replaces `arguments.variants` by the variants of --mx and of all shorthands, in the order of the command line. If
/// there are none, the default variant is taken. Throws UsageError.
void expand_variants(const CLI::App& command, EvalArguments& arguments);

/// The models of the command line; "" is the embedded model.
std::vector<std::string> model_names(const EvalArguments& arguments);
/// The data sets of --data, then those of --datasets.
std::vector<std::string> data_names(const EvalArguments& arguments);

/// On a rank other than 0, serves rank 0 until rank 0 ends, keeps the exit code for main and returns true; the command
/// then has nothing more to do. Returns false on rank 0 and without ranks.
bool followed(const EvalArguments& arguments);

class Outputs;

/// Evaluates models on data. The constructor checks the options, chooses the devices and reads the data of --text,
/// --data and --datasets, or else the embedded text. It warns about invalid UTF-8.
class Evaluations {
 public:
  /// Throws Error and UsageError.
  explicit Evaluations(const EvalArguments& arguments);

  /// Loads and evaluates one model after the other, each on all data, with a progress line for each run. Stops after an
  /// interrupt; the last run is then incomplete. A run without a finished shard is dropped and throws Interrupted, or
  /// an Error with the reason if something else stopped the run. `arguments` are those of the constructor; only
  /// variants and the journal may differ.
  EvalResult run(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs) const;

  /// The same for several runs, and writes their results. A failure is logged, and the next run follows, so that a
  /// failure does not cost the results of other runs. After writing, throws one Error for all failed runs. If there is
  /// only one run, throws its own Error. A mistake of the command line throws at once if no run has finished yet.
  void run_and_report(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs) const;

 private:
  struct Failures;
  EvalResult run(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs,
                 Failures* failures) const;

  DeviceSet devices_;
  std::vector<api::Data> data_;
};

}  // namespace mxlm::cli
