#pragma once

// The layout of --help.

#include <CLI/CLI.hpp>
#include <string>

namespace mxlm::cli {

/// The text after an option's name: "VALUE", "VALUE ...", "VALUE=default", or "" for a flag.
std::string option_value_text(const CLI::Option& option);

/// Formats help in lines of at most 80 columns.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
  std::string make_description(const CLI::App* app) const override;
  std::string make_footer(const CLI::App* app) const override;
};

}  // namespace mxlm::cli
