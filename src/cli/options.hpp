#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "cluster/ranks.hpp"
#include "library/state.hpp"
#include "load/load.hpp"

namespace mxlm::cli {

/// Options that every command takes.
struct GlobalOptions {
  bool quiet = false;
  std::string log_file;
  std::string command_line;     // as it was typed
  std::optional<int> followed;  // the exit code of a rank that has followed another
  Ranks* ranks = nullptr;       // that mpirun started with this process; none if it is alone
  /// Whether another rank leads: this one then prints and writes nothing.
  [[nodiscard]] bool follows() const { return ranks != nullptr && !ranks->leads(); }
};
GlobalOptions& global_options();

/// load_model with a progress line for what has to be downloaded.
LoadedModel load_model_by_name(const std::string& model, bool with_tokenizer, const std::string& adapter = {});

/// The same of the library's, with its tokenizer.
api::Model open_model_by_name(const std::string& model, const std::string& adapter);

/// MODEL and --adapter, for the commands that open one model.
void add_model(CLI::App& command, std::string& model, std::string& adapter);
/// --adapter alone.
void add_adapter(CLI::App& command, std::string& adapter);

/// Prints a result that people read to stdout, as printable_lines makes it; throws Error if stdout cannot take it (a
/// closed pipe, a full disk).
void print_result(std::string_view result);

}  // namespace mxlm::cli
