#pragma once

// Former names of options, which still work for one version. Arguments and configuration files are rewritten to current
// names before they are parsed, with one line in the log for each.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace mxlm::cli {

/// Lets `command` accept a former name for the option `current` ("--shard-tokens"). Help does not show the former name.
void add_former_name(CLI::App& command, const std::string& former, const std::string& current);

/// Whether add_former_name added the option.
bool is_former_name(const CLI::Option& option);

/// Returns the current flag for a current or former flag of the command, and logs the use of a former flag. Returns an
/// unknown flag as it is.
std::string current_flag(const CLI::App& command, const std::string& flag);

/// Replaces former flags ("--flag" or "--flag=value") in the arguments up to a bare "--".
std::vector<std::string> with_current_flags(const CLI::App& command, std::vector<std::string> arguments);

}  // namespace mxlm::cli
