#include "cli/config_file.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <sstream>
#include <utility>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "cli/former_names.hpp"
#include "io/file.hpp"

namespace mxlm::cli {
namespace {

using Arguments = std::vector<std::string>;
constexpr size_t kMostConfigBytes = size_t{4} << 20;  // ten thousand variants
constexpr int kMostSections = 16;

/// The end of the options: a bare "--", or the end of the arguments.
Arguments::iterator options_end(Arguments& arguments) { return std::find(arguments.begin(), arguments.end(), "--"); }

bool is_option(const std::string& argument, const std::string& option) {
  return argument == option || argument.starts_with(option + "=");
}

std::optional<std::string> config_path(Arguments& arguments) {
  const std::string option = "--config";
  std::optional<std::string> path;
  const auto end = options_end(arguments);
  for (auto at = arguments.begin(); at != end; ++at) {
    if (!is_option(*at, option)) continue;
    if (*at != option) {
      path = at->substr(option.size() + 1);
    } else if (std::next(at) != end) {
      path = *std::next(at);
    }
  }
  return path;
}

/// The first command that the arguments name; null if they name no command.
const CLI::App* named_command(const CLI::App& app, const Arguments& arguments) {
  for (const std::string& argument : arguments) {
    const auto found = app.get_subcommands([&](const CLI::App* command) { return command->get_name() == argument; });
    if (!found.empty()) return found.front();
  }
  return nullptr;
}

std::vector<CLI::ConfigItem> read_items(std::string_view text, const std::string& path) {
  if (text.size() > kMostConfigBytes) {
    fail("{} has {} bytes; a file of options may have at most {}.", quote(path), text.size(), kMostConfigBytes);
  }
  // Limit the depth of sections: the work of CLI11's reader grows with the square of the depth, and the reader silently
  // drops a key in very deep sections.
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const size_t first = line.find_first_not_of(" \t\r\v\f");
    if (first == line.npos || std::string_view("\"'#;").find(line[first]) != std::string_view::npos) continue;
    const std::string_view name = line.substr(0, line.find('='));
    if (std::count(name.begin(), name.end(), '.') > kMostSections) {
      fail("{} has a section more than {} levels deep; put options at the top or in a section with the command's name.",
           quote(path), kMostSections);
    }
  }
  std::istringstream stream{std::string(text)};
  try {
    return CLI::ConfigTOML().from_config(stream);
  } catch (const CLI::Error& error) {
    fail("{} cannot be read as a configuration ({}); give a TOML file.", quote(path), error.what());
  }
}

}  // namespace

std::vector<std::string> with_config_file(const CLI::App& app, std::vector<std::string> arguments) {
  const CLI::App* command = named_command(app, arguments);
  if (command == nullptr) return arguments;
  arguments = with_current_flags(*command, std::move(arguments));
  if (command->get_option_no_throw("--config") == nullptr) return arguments;
  const auto path = config_path(arguments);
  if (!path) return arguments;
  return with_config_text(*command, FileView::map(*path).text(), *path, std::move(arguments));
}

std::vector<std::string> with_config_text(const CLI::App& app, std::string_view text, const std::string& path,
                                          std::vector<std::string> arguments) {
  const CLI::App* const command = &app;
  Arguments added;
  for (const CLI::ConfigItem& item : read_items(text, path)) {
    if (item.name == "++" || item.name == "--") continue;  // a section opens or closes
    const bool here = item.parents.empty() || item.parents == std::vector<std::string>{command->get_name()};
    std::string name = item.name;
    std::replace(name.begin(), name.end(), '_', '-');
    const std::string option = current_flag(*command, "--" + name);
    const CLI::Option* known = command->get_option_no_throw(option);
    if (!here || known == nullptr || name == "config" || name == "help") {
      fail("{}: {} is not an option of '{}'; 'mxlm {} --help' lists them.", quote(path), quote(item.fullname()),
           command->get_name(), command->get_name());
    }
    const auto given = [&option](const std::string& argument) { return is_option(argument, option); };
    if (std::any_of(arguments.begin(), options_end(arguments), given)) continue;
    if (known->get_expected_min() == 0) {
      const std::string value = item.inputs.empty() ? "true" : item.inputs.front();
      if (item.inputs.size() > 1 || (value != "true" && value != "false")) {
        fail("{}: {} is a flag; set it to true or false.", quote(path), quote(item.fullname()));
      }
      if (value == "true") added.push_back(option);
    } else {
      if (item.inputs.size() > 1 && known->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeLast) {
        fail("{}: {} takes one value, not {}.", quote(path), quote(item.fullname()), item.inputs.size());
      }
      for (const std::string& value : item.inputs) added.push_back(fmt::format("{}={}", option, value));
    }
  }
  arguments.insert(options_end(arguments), added.begin(), added.end());
  return arguments;
}

}  // namespace mxlm::cli
