#pragma once

#include <CLI/CLI.hpp>

namespace mxlm::cli {

// One file a subcommand: each function adds its command with options, an example in the footer, and a callback that
// does the work. Callbacks throw mxlm::Error, UsageError or Interrupted; main turns them into messages and exit codes.
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
