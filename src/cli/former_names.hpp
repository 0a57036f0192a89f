#pragma once

// Former names of options, which still work for a version: what is typed or configured is replaced by the current name
// before anything is parsed, with one line in the log.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace mxlm::cli {

/// Lets `command` take the option `current` ("--shard-tokens") by a former name, too, which help does not show.
void add_former_name(CLI::App& command, const std::string& former, const std::string& current);

/// True for what add_former_name added.
bool is_former_name(const CLI::Option& option);

/// The current flag of an option of the command by any of its flags; logs that a former name was used. A flag that the
/// command does not know stays as it is.
std::string current_flag(const CLI::App& command, const std::string& flag);

/// The arguments up to a bare "--" with current flags ("--flag" or "--flag=value").
std::vector<std::string> with_current_flags(const CLI::App& command, std::vector<std::string> arguments);

}  // namespace mxlm::cli
