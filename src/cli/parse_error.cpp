#include "cli/parse_error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "cli/former_names.hpp"

namespace mxlm::cli {
namespace {

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options([](const CLI::Option* o) { return !is_former_name(*o); })) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  if (app.get_parent() != nullptr) {
    for (std::string& name : option_names(*app.get_parent())) names.push_back(std::move(name));
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

}  // namespace

std::string describe(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  const auto parsed = app.get_subcommands();
  const CLI::App* command = parsed.empty() ? nullptr : parsed.front();
  const std::string program = command == nullptr ? "mxlm" : "mxlm " + command->get_name();
  const auto option = std::find_if(left.begin(), left.end(), [](const std::string& a) { return a.starts_with("-"); });
  if (command == nullptr) {
    const auto word = std::find_if(left.begin(), left.end(), [](const std::string& a) { return !a.starts_with("-"); });
    if (word != left.end()) {
      return fmt::format("There is no command {}; 'mxlm --help' lists them.{}", quote(*word),
                         suggestion(*word, command_names(app)));
    }
  }
  if (option != left.end()) {
    const std::string name = option->substr(0, option->find('='));
    return fmt::format("There is no option {} of '{}'; '{} --help' lists them.{}", quote(name), program, program,
                       suggestion(name, option_names(command == nullptr ? app : *command)));
  }
  if (command != nullptr && !left.empty()) {
    return fmt::format("'{}' takes no argument {}; see '{} --help'.", program, quote(left.front()), program);
  }
  return fmt::format("{}; see '{} --help'.", error.what(), program);
}

}  // namespace mxlm::cli
