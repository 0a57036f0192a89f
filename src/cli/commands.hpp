#pragma once

// The subcommands of the program.

#include <CLI/CLI.hpp>

namespace mxlm::cli {

// Each subcommand has its own file. Its function adds the command with its options, an example in the footer, and a
// callback that does the work. Callbacks throw mxlm::Error, UsageError or Interrupted; main turns these into messages
// and exit codes.

void add_bench(CLI::App& app);
void add_cast(CLI::App& app);
void add_completion(CLI::App& app);
void add_eval(CLI::App& app);
void add_fetch(CLI::App& app);
void add_formats(CLI::App& app);
void add_inspect(CLI::App& app);
void add_logits(CLI::App& app);
void add_man(CLI::App& app);
void add_models(CLI::App& app);
void add_report(CLI::App& app);
void add_suite(CLI::App& app);
void add_sweep(CLI::App& app);
void add_tokenize(CLI::App& app);

}  // namespace mxlm::cli
