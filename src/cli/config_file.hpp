#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::cli {

/// The arguments of the command line (in order, without the program's name, long options with dashes) with current
/// names of options and the options of the TOML file that `--config FILE` names added at their end, as `--name=value`.
/// What the command line gives too is left out, so it wins. The file's keys are long options of the command, dashes or
/// underscores, at the top or in a section of the command's name; a list repeats an option, a flag is true or false.
/// Commands without `--config` are not touched. Throws Error naming the file and the key.
std::vector<std::string> with_config_file(const CLI::App& app, std::vector<std::string> arguments);

/// The same for the command `app` and the text of its file, which `path` names in messages.
std::vector<std::string> with_config_text(const CLI::App& app, std::string_view text, const std::string& path,
                                          std::vector<std::string> arguments);

}  // namespace mxlm::cli
