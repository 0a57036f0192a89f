#pragma once

// The kinds of values of options, for help, manual page and shell completion.

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace mxlm::cli {

/// A kind of value of an option or positional, with the word that help, manual page and completion show.
struct ValueKind {
  std::string word;                // "FILE", "FORMAT", ...
  std::vector<std::string> words;  // words that completion offers
  bool files = false;              // whether completion offers files and folders
};

/// The kind of an option's value. A kind without words and files offers nothing.
const ValueKind& value_kind(const CLI::Option& option);

/// The words that completion offers for the kind `word`.
const std::vector<std::string>& kind_words(std::string_view word);

/// Gives the options of all commands the words of their kinds. Also lets the last use win if an option with one value
/// is repeated. Call it after all commands have been added.
void name_values(CLI::App& app);

/// Whether one use of the option takes several values.
bool takes_several(const CLI::Option& option);

/// The options of a command, without positionals, --help and former names.
std::vector<const CLI::Option*> named_options(const CLI::App& command);

}  // namespace mxlm::cli
