#pragma once

// What the commands that evaluate (eval, suite, sweep) share: their options, and the evaluation itself.

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

/// The options of an evaluation, and those that a command has beside them.
struct EvalArguments : api::EvaluateOptions, ReportFiles {
  std::vector<std::string> models, text, data, datasets;
  std::string adapter;  // folder, "" = none
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

/// MODEL... and --adapter.
void add_models(CLI::App& command, EvalArguments& arguments);

/// All options of both tables but those of the groups `without`.
void add_eval_options(CLI::App& command, EvalArguments& arguments,
                      std::initializer_list<std::string_view> without = {});

/// Puts the variants of all shorthands among those of --mx, in the order in which they were given to `command`; the
/// default one if there are none. Throws UsageError.
void expand_variants(const CLI::App& command, EvalArguments& arguments);

/// The models of the command line; "" is the embedded one.
std::vector<std::string> model_names(const EvalArguments& arguments);
/// What --data and then --datasets name.
std::vector<std::string> data_names(const EvalArguments& arguments);

/// On a rank that follows: does what rank 0 says until that ends, and keeps the exit code for main; true if it did.
/// Such a command has nothing more to do then.
bool followed(const EvalArguments& arguments);

class Outputs;

/// What is evaluated on what. Its construction checks the options, chooses the devices and reads what --text, --data
/// and --datasets name (the embedded text without any), with a warning about invalid UTF-8.
class Evaluations {
 public:
  /// Throws Error and UsageError.
  explicit Evaluations(const EvalArguments& arguments);

  /// Loads and evaluates one model after the other, each on all data, with a progress line each. Stops after an
  /// interrupt, with the last run not complete; a run without a finished shard counts as none, and ends in Interrupted,
  /// or Error with what stopped it. `arguments`: as for the constructor; only variants and the journal may be others.
  EvalResult run(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs) const;

  /// The same for several runs, whose failures cost no finished run: a run that fails is told in the log, and the next
  /// follows. Writes what there is, then throws one Error for the runs that failed. A single run that fails throws its
  /// own, and so does a mistake of the command line that shows before any run has finished.
  void run_and_report(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs) const;

 private:
  struct Failures;
  EvalResult run(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs,
                 Failures* failures) const;

  DeviceSet devices_;
  std::vector<api::Data> data_;
};

}  // namespace mxlm::cli
