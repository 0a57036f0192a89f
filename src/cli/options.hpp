#pragma once

// The options of all commands, and helpers that several commands share.

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "cluster/ranks.hpp"
#include "library/state.hpp"
#include "load/load.hpp"

namespace mxlm::cli {

/// The options of all commands, and the state of the program.
struct GlobalOptions {
  bool quiet = false;
  std::string log_file;
  std::string command_line;     // as the user typed it
  std::optional<int> followed;  // the exit code that rank 0 gave to this rank
  Ranks* ranks = nullptr;       // the processes that mpirun started; null without mpirun
  /// Whether another rank leads. This process then prints and writes nothing.
  [[nodiscard]] bool follows() const { return ranks != nullptr && !ranks->leads(); }
};
GlobalOptions& global_options();

/// load_model with a progress line for downloads.
LoadedModel load_model_by_name(const std::string& model, bool with_tokenizer, const std::string& adapter = {});

/// The same for a model of the library, with its tokenizer.
api::Model open_model_by_name(const std::string& model, const std::string& adapter);

/// Adds MODEL and --adapter to a command that opens one model.
void add_model(CLI::App& command, std::string& model, std::string& adapter);
/// Adds only --adapter.
void add_adapter(CLI::App& command, std::string& adapter);

/// Prints a result for people to stdout, after printable_lines has made it harmless for terminals. Throws Error if
/// stdout fails (a closed pipe, a full disk).
void print_result(std::string_view result);

}  // namespace mxlm::cli
