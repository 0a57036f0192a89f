// mxlm man: the manual page, made from the help of the commands.

#include <fmt/format.h>

#include <sstream>
#include <string>
#include <string_view>

#include "cli/commands.hpp"
#include "cli/help_format.hpp"
#include "cli/options.hpp"
#include "cli/values.hpp"

namespace mxlm::cli {
namespace {

/// Escapes text for troff, so that it contains no escapes and requests of troff, and readers can copy hyphens.
std::string troff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
      out += "\\&";
      out += c;
    } else {
      out += c;
    }
  }
  return out;
}

std::string item(const std::string& name, const std::string& value, const std::string& text) {
  return fmt::format(".TP\n\\fB{}\\fR{}{}\n{}\n", troff(name), value.empty() ? "" : " ",
                     value.empty() ? "" : "\\fI" + troff(value) + "\\fR", troff(text));
}

std::string option_item(const CLI::Option& option) {
  const bool positional = option.get_positional();
  std::string name = positional ? option.get_name(true, false) : option.get_name(false, true);
  const size_t comma = name.find(',');
  if (comma != name.npos) name.insert(comma + 1, " ");
  const std::string value = positional ? "" : option_value_text(option);
  return item(name, value, option.get_description() + (option.get_required() ? " (required)" : "") + ".");
}

/// Keeps lines as they are, but sets examples as code.
std::string footer(const std::string& text) {
  std::string out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    constexpr std::string_view kExample = "Example: ";
    if (line.starts_with(kExample)) {
      out += fmt::format(".PP\nExample:\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", troff(line.substr(kExample.size())));
    } else {
      out += ".PP\n" + troff(line) + "\n";
    }
  }
  return out;
}

std::string page(const CLI::App& app) {
  std::string out = fmt::format(
      ".\\\" Made by 'mxlm man'.\n.TH MXLM 1 \"\" \"mxlm {}\" \"User Commands\"\n.nh\n.ad l\n.SH NAME\nmxlm \\- {}\n"
      ".SH SYNOPSIS\n.B mxlm\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH OPTIONS OF EVERY COMMAND\n",
      MXLM_VERSION, troff(app.get_description()));
  for (const CLI::Option* option : named_options(app)) out += option_item(*option);
  out += ".SH COMMANDS\n";
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    out += fmt::format(".SS mxlm {}\n{}.\n", troff(command->get_name()), troff(command->get_description()));
    for (const CLI::Option* option : command->get_options([](const CLI::Option* o) { return o->get_positional(); })) {
      out += option_item(*option);
    }
    for (const CLI::Option* option : named_options(*command)) {
      if (!option->get_positional()) out += option_item(*option);
    }
    out += footer(command->get_footer());
  }
  out += ".SH NOTES\n" + footer(app.get_footer());
  return out;
}

}  // namespace

void add_man(CLI::App& app) {
  CLI::App* command = app.add_subcommand("man", "Print the manual page, in troff");
  command->footer("Example: mxlm man | man -l -");
  command->callback([&app] { print_result(page(app)); });
}

}  // namespace mxlm::cli
