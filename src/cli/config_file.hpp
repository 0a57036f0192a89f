#pragma once

// Options from the TOML file of --config.

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::cli {

/// Replaces former names of options in the arguments of the command line, and appends the options of the TOML file that
/// `--config FILE` names as `--name=value`. `arguments` are in order and without the program's name. An option of the
/// command line wins over the file. Keys of the file are long options of the command, with dashes or underscores, at
/// the top or in a section with the command's name. A list repeats an option, and a flag is true or false. Arguments of
/// commands without `--config` get no options. Throws Error naming the file and the key.
std::vector<std::string> with_config_file(const CLI::App& app, std::vector<std::string> arguments);

/// The same for the command `app` and the text of the file. Messages call the file `path`.
std::vector<std::string> with_config_text(const CLI::App& app, std::string_view text, const std::string& path,
                                          std::vector<std::string> arguments);

}  // namespace mxlm::cli
