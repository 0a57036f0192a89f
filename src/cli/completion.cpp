// mxlm completion: scripts that complete commands, options and values in a shell. The scripts are made from the
// commands, so they cannot disagree with them.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/suggest.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "cli/values.hpp"

namespace mxlm::cli {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<const CLI::Option*> positionals_of(const CLI::App& command) {
  return command.get_options([](const CLI::Option* option) { return option->get_positional(); });
}

bool takes_value(const CLI::Option& option) { return option.get_expected_min() > 0; }

/// All names of an option as the user types them: "--output", "-o".
std::vector<std::string> spellings(const CLI::Option& option) {
  std::vector<std::string> out;
  for (const std::string& name : option.get_lnames()) out.push_back("--" + name);
  for (const std::string& name : option.get_snames()) out.push_back("-" + name);
  return out;
}

/// The options of a command, and the options of all commands.
std::vector<const CLI::Option*> all_options(const CLI::App& app, const CLI::App& command) {
  std::vector<const CLI::Option*> out = named_options(command);
  for (const CLI::Option* option : named_options(app)) {
    if (takes_value(*option) || option->get_name() == "--quiet") out.push_back(option);
  }
  return out;
}

// bash -----------------------------------------------------------------------------------------------------------

/// Shell code that sets `words`, `files` and `several` for the values of `option`.
std::string bash_kind(const CLI::Option& option) {
  const ValueKind& kind = value_kind(option);
  return fmt::format("words='{}' files={} several={}", fmt::join(kind.words, " "), kind.files ? 1 : 0,
                     takes_several(option) ? 1 : 0);
}

std::string bash_script(const CLI::App& app) {
  std::string names, options, values, positionals;
  for (const CLI::App* command : commands_of(app)) {
    const std::string& name = command->get_name();
    names += (names.empty() ? "" : " ") + name;
    std::vector<std::string> all = {"--help"};
    for (const CLI::Option* option : all_options(app, *command)) {
      std::vector<std::string> patterns;
      for (const std::string& spelling : spellings(*option)) {
        if (spelling.starts_with("--")) all.push_back(spelling);
        patterns.push_back(fmt::format("'{} {}'", name, spelling));
      }
      if (takes_value(*option)) {
        values += fmt::format("    {}) {} ;;\n", fmt::join(patterns, "|"), bash_kind(*option));
      }
    }
    options += fmt::format("    {}) options='{}' ;;\n", name, fmt::join(all, " "));
    const auto first = positionals_of(*command);
    if (!first.empty()) positionals += fmt::format("    {}) {} ;;\n", name, bash_kind(*first.front()));
  }
  std::vector<std::string> global = {"--help"};
  for (const CLI::Option* option : named_options(app)) {
    for (const std::string& spelling : spellings(*option)) global.push_back(spelling);
  }
  // bash cuts words at '=' and ':' (COMP_WORDBREAKS), so the script joins them and counts whole arguments.
  return fmt::format(R"(# bash completion for mxlm, made by 'mxlm completion bash'
_mxlm() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} command= option= last= between=0 joined=0 i word
  local words= files=0 several=0 options='{}' commands='{}'
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${{COMP_WORDS[i]}}
    if [[ $word == '=' ]]; then
      between=$((between - 1)) joined=1
    elif [[ $word == -* && $joined -eq 0 ]]; then
      option=$word between=0
    else
      between=$((between + 1)) joined=0
      if [[ -z $command && " $commands " == *" $word "* && $last != --log-file ]]; then
        command=$word option= between=0
      fi
    fi
    last=$word
  done
  if [[ $cur == '=' ]]; then
    cur= joined=1 between=$((between - 1))
  fi
  case $command in
{}  esac
  case "$command $option" in
{}    ' --log-file') files=1 ;;
    *) option= ;;
  esac
  if [[ -n $option && $several -eq 0 && $between -gt 0 ]]; then option= words= files=0; fi
  if [[ $option == --mx && $joined -eq 1 && $between -ge 0 ]]; then words='{} none'; fi
  if [[ $cur == -* && $joined -eq 0 ]]; then
    words=$options files=0
  elif [[ -z $option && -z $command ]]; then
    words=$commands
  elif [[ -z $option ]]; then
    case $command in
{}    esac
  fi
  COMPREPLY=()
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(
    compgen -W "$words" -- "$cur"
    [[ $files -eq 1 ]] && compgen -f -- "$cur"
  )
  [[ $files -eq 1 ]] && compopt -o filenames 2>/dev/null
  [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}}
complete -F _mxlm mxlm
)",
                     fmt::join(global, " "), names, options, values, fmt::join(kind_words("FORMAT"), " "), positionals);
}

// zsh ------------------------------------------------------------------------------------------------------------

/// Text for single quotes, with the syntax characters of _arguments and _describe escaped.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

/// The ":MESSAGE:ACTION" of an option's value.
std::string zsh_value(const CLI::Option& option) {
  const ValueKind& kind = value_kind(option);
  const std::string words = fmt::format("{}", fmt::join(kind.words, " "));
  std::string action = " ";
  if (kind.files && kind.words.empty()) {
    action = "_files";
  } else if (kind.files) {
    action = fmt::format("{{compadd -- {}; _files}}", words);
  } else if (!kind.words.empty()) {
    action = fmt::format("({})", words);
  }
  return fmt::format(":{}:{}", kind.word, action);
}

std::string zsh_option(const CLI::Option& option) {
  std::string out;
  for (const std::string& spelling : spellings(option)) {
    const bool value = takes_value(option);
    const std::string equals = !value ? "" : spelling.starts_with("--") ? "=" : "+";
    out += fmt::format(" \\\n        '*{}{}[{}]{}'", spelling, equals, zsh_text(option.get_description()),
                       value ? zsh_value(option) : "");
  }
  return out;
}

std::string zsh_script(const CLI::App& app) {
  std::string commands, cases;
  for (const CLI::App* command : commands_of(app)) {
    commands += fmt::format("    '{}:{}'\n", command->get_name(), zsh_text(command->get_description()));
    std::string arguments = " \\\n        '--help[Print the help and exit]'";
    for (const CLI::Option* option : all_options(app, *command)) arguments += zsh_option(*option);
    for (const CLI::Option* option : positionals_of(*command)) {
      arguments += fmt::format(" \\\n        '{}{}'", takes_several(*option) ? "*" : "", zsh_value(*option));
    }
    cases += fmt::format("    {})\n      _arguments{}\n      ;;\n", command->get_name(), arguments);
  }
  return fmt::format(R"(#compdef mxlm
# zsh completion for mxlm, made by 'mxlm completion zsh'
_mxlm() {{
  local curcontext=$curcontext state line
  local -a commands=(
{}  )
  _arguments -C '--help[Print the help and exit]' '--version[Print the version and exit]' \
    '--quiet[No progress]' '--log-file=[Write the log here too]:FILE:_files' \
    '1:command:->command' '*::argument:->argument'
  if [[ $state == command ]]; then
    _describe command commands
    return
  fi
  case $words[1] in
{}  esac
}}
if [[ $funcstack[1] == _mxlm ]]; then
  _mxlm "$@"
else
  compdef _mxlm mxlm
fi
)",
                     commands, cases);
}

// fish -----------------------------------------------------------------------------------------------------------

std::string fish_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string fish_value(const CLI::Option& option) {
  const ValueKind& kind = value_kind(option);
  std::string out = kind.files ? " -F" : " -f";
  if (!kind.words.empty()) out += fmt::format(" -a '{}'", fmt::join(kind.words, " "));
  return out;
}

std::string fish_option(const std::string& condition, const CLI::Option& option) {
  std::string out = fmt::format("complete -c mxlm -n '{}'", condition);
  for (const std::string& name : option.get_lnames()) out += " -l " + name;
  for (const std::string& name : option.get_snames()) out += " -s " + name;
  if (takes_value(option)) out += " -r" + fish_value(option);
  return out + fmt::format(" -d '{}'\n", fish_text(option.get_description()));
}

std::string fish_script(const CLI::App& app) {
  std::string out = "# fish completion for mxlm, made by 'mxlm completion fish'\ncomplete -c mxlm -f\n";
  const std::string none = "__fish_use_subcommand";
  for (const CLI::Option* option : named_options(app)) out += fish_option(none, *option);
  for (const CLI::App* command : commands_of(app)) {
    out += fmt::format("complete -c mxlm -n '{}' -a {} -d '{}'\n", none, command->get_name(),
                       fish_text(command->get_description()));
    const std::string condition = "__fish_seen_subcommand_from " + command->get_name();
    for (const CLI::Option* option : all_options(app, *command)) out += fish_option(condition, *option);
    for (const CLI::Option* option : positionals_of(*command)) {
      out += fmt::format("complete -c mxlm -n '{}'{}\n", condition, fish_value(*option));
    }
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print a script that completes mxlm's words in a shell");
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->type_name("SHELL");
  command->footer(
      "Example: mxlm completion bash > ~/.local/share/bash-completion/completions/mxlm\n"
      "Example: mxlm completion zsh > ~/.zfunc/_mxlm   (a folder of $fpath)\n"
      "Example: mxlm completion fish > ~/.config/fish/completions/mxlm.fish");
  command->callback([&app, shell] {
    if (*shell == "bash") {
      print_result(bash_script(app));
    } else if (*shell == "zsh") {
      print_result(zsh_script(app));
    } else if (*shell == "fish") {
      print_result(fish_script(app));
    } else {
      const std::vector<std::string> known = {"bash", "zsh", "fish"};
      fail_usage("There is no completion for '{}'; give bash, zsh or fish.{}", *shell, suggestion(*shell, known));
    }
  });
}

}  // namespace mxlm::cli
