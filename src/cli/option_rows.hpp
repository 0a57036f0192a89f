#pragma once

// Makes options of the command line from the rows of a table of options.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "cli/former_names.hpp"
#include "mxlm/options.hpp"

namespace mxlm::cli {

/// Adds an option to `command` that fills the row's member of `into`. Borrows the row.
template <typename Options>
CLI::Option* add_option(CLI::App& command, Options& into, const api::Option<Options>& row) {
  const std::string flag = row.command_line_flag();
  CLI::Option* const option = std::visit(
      [&]<typename Member>(const Member& member) {
        if constexpr (std::is_same_v<Member, api::Choice<Options>>) {
          const auto choose = [&into, &row, &member](const std::string& word) {
            member.set(into, api::place_of_word(word, member.words, row.command_line_flag()));
          };
          return command.add_option_function<std::string>(flag, choose, row.help)
              ->default_str(member.words.at(member.get(into)));
        } else if constexpr (std::is_same_v<Member, std::filesystem::path Options::*>) {
          const auto assign = [&into, member](const std::string& path) { into.*member = path; };
          return command.add_option_function<std::string>(flag, assign, row.help);
        } else if constexpr (std::is_same_v<Member, bool Options::*>) {
          return command.add_flag(flag, into.*member, row.help);
        } else {
          using Value = std::remove_cvref_t<decltype(into.*member)>;
          CLI::Option* const added = command.add_option(flag, into.*member, row.help);
          if constexpr (std::is_arithmetic_v<Value>) {
            const auto least = static_cast<Value>(row.least), most = static_cast<Value>(row.most);
            if (into.*member >= least && into.*member <= most) added->capture_default_str();
            added->check(CLI::Range(least, most));
          } else if constexpr (std::is_same_v<Value, std::string>) {
            if (!(into.*member).empty()) added->capture_default_str();
          } else if (!row.several) {
            added->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
          }
          return added;
        }
      },
      row.member);
  option->group(row.group);
  if (!row.value.empty()) option->type_name(row.value);
  if (!row.former.empty()) add_former_name(command, row.former, flag);
  return option;
}

/// Adds all rows of a table, except those of the groups `without`.
template <typename Options>
void add_options(CLI::App& command, Options& into, const std::vector<api::Option<Options>>& table,
                 std::initializer_list<std::string_view> without = {}) {
  for (const api::Option<Options>& row : table) {
    if (std::find(without.begin(), without.end(), row.group) == without.end()) add_option(command, into, row);
  }
}

}  // namespace mxlm::cli
