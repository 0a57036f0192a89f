#include "cli/former_names.hpp"

#include "base/log.hpp"

namespace mxlm::cli {
namespace {

constexpr const char* kGroup = "";  // the group of options that CLI11 does not show

}  // namespace

// A former name is an option in a hidden group of CLI11, whose description is the current flag. Its value is never
// used.
void add_former_name(CLI::App& command, const std::string& former, const std::string& current) {
  command.add_option(former)->description(current)->group(kGroup);
}

bool is_former_name(const CLI::Option& option) { return option.get_group() == kGroup; }

std::string current_flag(const CLI::App& command, const std::string& flag) {
  const CLI::Option* const option = command.get_option_no_throw(flag);
  if (option == nullptr || !is_former_name(*option)) return flag;
  log_warn("{} is now called {}; the next version removes the former name", flag, option->get_description());
  return option->get_description();
}

std::vector<std::string> with_current_flags(const CLI::App& command, std::vector<std::string> arguments) {
  for (std::string& argument : arguments) {
    if (argument == "--") break;
    if (!argument.starts_with("--")) continue;
    const size_t end = std::min(argument.find('='), argument.size());
    argument.replace(0, end, current_flag(command, argument.substr(0, end)));
  }
  return arguments;
}

}  // namespace mxlm::cli
