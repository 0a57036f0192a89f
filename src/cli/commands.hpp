#pragma once

#include <CLI/CLI.hpp>

namespace mxlm::cli {

// One file a subcommand: each function adds its command with options, an example in the footer, and a callback that does
// the work. Callbacks throw mxlm::Error, UsageError or Interrupted; main turns them into messages and exit codes.
void add_cast(CLI::App& app);
void add_formats(CLI::App& app);
void add_tokenize(CLI::App& app);

}  // namespace mxlm::cli
