#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::cli {

/// What an option or positional takes, by the word that help, manual and shell completion show for it.
struct ValueKind {
  std::string word;                // "FILE", "FORMAT", ...
  std::vector<std::string> words;  // that completion offers
  bool files = false;              // so are files and folders
};

/// The kind of an option's value; one without words and files where nothing can be offered.
const ValueKind& value_kind(const CLI::Option& option);

/// The words of a kind by its word.
const std::vector<std::string>& kind_words(std::string_view word);

/// Gives the options of all commands the words of their kinds, and lets the last one win where an option that takes one
/// value is given again. Call it when all commands are there.
void name_values(CLI::App& app);

/// True for options that take more than one value in a row.
bool takes_several(const CLI::Option& option);

/// The options of a command that are not positional, without --help.
std::vector<const CLI::Option*> named_options(const CLI::App& command);

}  // namespace mxlm::cli
