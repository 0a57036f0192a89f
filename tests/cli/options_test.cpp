// The tables of options: everything that is made from a row works, and the guide has every row.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "cli/config_file.hpp"
#include "cli/eval_options.hpp"
#include "cli/option_rows.hpp"
#include "cli/values.hpp"
#include "run_mxlm.hpp"

namespace mxlm::cli {
namespace {

using testing::HasSubstr;

/// What a row's member holds, as text.
template <typename Options>
std::string held(const Options& options, const api::Option<Options>& row) {
  return std::visit(
      [&]<typename Member>(const Member& member) -> std::string {
        if constexpr (std::is_same_v<Member, api::Choice<Options>>) {
          return member.words.at(member.get(options));
        } else {
          const auto& value = options.*member;
          using Value = std::remove_cvref_t<decltype(value)>;
          if constexpr (std::is_same_v<Value, std::filesystem::path>) {
            return value.string();
          } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
            std::string out;
            for (const std::string& word : value) out += (out.empty() ? "" : " ") + word;
            return out;
          } else if constexpr (std::is_same_v<Value, std::vector<int>>) {
            return value.empty() ? "" : std::to_string(value.back());
          } else {
            return fmt::format("{}", value);
          }
        }
      },
      row.member);
}

/// A value that is not the default.
template <typename Options>
std::string sample(const api::Option<Options>& row) {
  if (row.value.empty()) return "true";
  if (const auto* choice = std::get_if<api::Choice<Options>>(&row.member)) return choice->words.back();
  return row.most > 0 ? fmt::format("{}", row.least + (row.value == "N" ? 1 : (row.most - row.least) / 2)) : "7";
}

/// A command with all options of the tables.
struct Command {
  CLI::App app{"", "eval"};
  EvalArguments arguments;
  Command() { add_eval_options(app, arguments); }
  void parse(std::vector<std::string> words) {
    std::reverse(words.begin(), words.end());
    app.parse(words);
  }
};

template <typename Options>
void expect_taken(const std::vector<api::Option<Options>>& table) {
  for (const api::Option<Options>& row : table) {
    SCOPED_TRACE(row.name);
    const std::string value = sample(row), flag = row.command_line_flag();
    ASSERT_NE(held<Options>(EvalArguments(), row), value);
    Command typed;
    typed.parse(row.value.empty() ? std::vector<std::string>{flag} : std::vector<std::string>{flag, value});
    EXPECT_EQ(held<Options>(typed.arguments, row), value);
    if (row.name == "config") continue;  // names the file itself
    Command configured;
    std::string key = flag.substr(2);
    std::replace(key.begin(), key.end(), '-', '_');
    const bool quoted_value = !row.value.empty() && row.most == 0;
    configured.parse(
        with_config_text(configured.app, key + " = " + (quoted_value ? "\"" + value + "\"" : value), "c", {}));
    EXPECT_EQ(held<Options>(configured.arguments, row), value);
  }
}

TEST(Options, EveryRowIsTakenFromCommandLineAndConfiguration) {
  expect_taken(api::option_table());
  expect_taken(command_option_table());
}

TEST(Options, EveryRowIsInHelpManualAndCompletion) {
  const std::string help = run_mxlm("eval --help").out, man = run_mxlm("man").out,
                    bash = run_mxlm("completion bash").out;
  Command command;
  const auto check = [&](const auto& table) {
    std::set<std::string> names;
    for (const auto& row : table) {
      SCOPED_TRACE(row.name);
      const std::string flag = row.command_line_flag();
      EXPECT_TRUE(names.insert(row.name).second);
      EXPECT_THAT(help, HasSubstr("\n  " + flag + (row.value.empty() ? " " : " " + row.value)));
      EXPECT_THAT(help, HasSubstr("\n" + row.group + ":\n"));
      std::string escaped;
      for (const char c : flag) escaped += c == '-' ? "\\-" : std::string(1, c);
      EXPECT_THAT(man, HasSubstr("\\fB" + escaped + "\\fR"));
      if (row.value.empty()) {
        EXPECT_THAT(bash, HasSubstr(" " + flag));
      } else {
        EXPECT_THAT(bash, HasSubstr("'eval " + flag + "') words='"));
        // The word is a known kind of value, with words to complete or none.
        EXPECT_EQ(value_kind(*command.app.get_option(flag)).word, row.value);
      }
    }
  };
  check(api::option_table());
  check(command_option_table());
}

TEST(Options, TheGuideHasEveryRowUnderItsHeading) {
  const std::string guide = slurp(MXLM_SOURCE_DIR "/docs/guide.md");
  const auto check = [&](const auto& table) {
    for (const auto& row : table) {
      const std::string heading = "\n### " + row.group + "\n";
      const size_t begin = guide.find(heading);
      ASSERT_NE(begin, guide.npos) << heading;
      const std::string section = guide.substr(begin, guide.find("\n#", begin + heading.size()) - begin);
      // In the first cell of a line of its tables.
      bool found = false;
      for (size_t at = section.find("\n| `"); at != section.npos && !found; at = section.find("\n| `", at + 1)) {
        const std::string cell = section.substr(at, section.find(" | ", at + 3) - at) + " ";
        found = cell.find("`" + row.command_line_flag() + "`") != cell.npos ||
                cell.find("`" + row.command_line_flag() + " ") != cell.npos;
      }
      EXPECT_TRUE(found) << row.command_line_flag() << " is not in the tables of " << row.group;
    }
  };
  check(api::option_table());
  check(command_option_table());
}

TEST(Options, FormerNamesWorkAndSaySo) {
  const Folder folder;
  const auto rounds = [](const Outcome& outcome) {
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out)["runs"][0]["seconds"]["by_round"][0].size();
  };
  const std::string run = "eval --quiet --no-journal --device cpu --max-windows 3 --context 16 --no-variants --json - ";
  EXPECT_EQ(rounds(run_mxlm(run + "--shard-tokens 16")), 3U);
  const std::string told = "mxlm: warning: --round-tokens is now called --shard-tokens";
  const Outcome typed = run_mxlm(run + "--round_tokens=16");
  EXPECT_EQ(rounds(typed), 3U);
  EXPECT_THAT(typed.err, testing::StartsWith(told));
  EXPECT_EQ(std::count(typed.err.begin(), typed.err.end(), '\n'), 1);
  const std::string config = quoted(folder.file("c.toml", "round_tokens = 16\n"));
  const Outcome configured = run_mxlm(run + "--config " + config);
  EXPECT_EQ(rounds(configured), 3U);
  EXPECT_THAT(configured.err, testing::StartsWith(told));
  // The command line wins over the file, whichever name each of them uses.
  EXPECT_EQ(rounds(run_mxlm(run + "--shard-tokens 1000 --config " + config)), 1U);
  const std::string current = quoted(folder.file("d.toml", "shard_tokens = 16\n"));
  EXPECT_EQ(rounds(run_mxlm(run + "--round-tokens 1000 --config " + current)), 1U);
  const Outcome sweep = run_mxlm(
      "sweep --quiet --no-journal --max-windows 1 --context 16 --formats mxfp4 --rounds even floor --max-variants 2");
  EXPECT_EQ(sweep.code, 0) << sweep.err;
  EXPECT_THAT(sweep.err, HasSubstr("--rounds is now called --roundings"));
  EXPECT_THAT(run_mxlm("eval --rounds 3").err, HasSubstr("There is no option '--rounds'"));
}

TEST(Options, NumbersOutOfTheirBoundsAreRefused) {
  for (const auto& row : api::option_table()) {
    if (row.most == 0) continue;
    for (const double value : {row.least - 1, row.most + 1}) {
      Command command;
      EXPECT_THROW(command.parse({fmt::format("{}={}", row.command_line_flag(), value)}), CLI::ValidationError)
          << row.name << ' ' << value;
      api::EvaluateOptions options;
      std::visit(
          [&](const auto& member) {
            if constexpr (requires { options.*member - 1; }) {
              using Value = std::remove_cvref_t<decltype(options.*member)>;
              options.*member = static_cast<Value>(value);
              const bool standard = options.*member == api::EvaluateOptions().*member;
              EXPECT_EQ(standard,
                        [&] {
                          try {
                            api::check_options(options);
                            return true;
                          } catch (const UsageError& error) {
                            EXPECT_THAT(error.what(), HasSubstr(row.command_line_flag() + " is "));
                            return false;
                          }
                        }())
                  << row.name << ' ' << value;
            } else {
              ADD_FAILURE() << row.name << " has bounds and is no number";
            }
          },
          row.member);
    }
  }
}

TEST(Options, VariantsOfShorthandsAreTheirText) {
  // What reaches the evaluation is text, as from Python: each has to parse to itself again.
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--tier", "all", "--full-pipeline"},
           {"--tier", "C", "--mx", "x1: lm_head=mxfp8,mlp=mxfp4/mxfp8", "--mx", "qk=mxfp8,*=mxfp6",
            "--quantize-outputs"},
           {"--mlp-only", "--all-linears", "--mx-format", "mxfp4@block=16", "mxint8", "--quantize-outputs"},
           {"--mx", "linear=mxfp8,qk=mxfp8,pv=mxfp8,vector=bf16"}}) {
    Command command;
    command.parse(words);
    expand_variants(command.app, command.arguments);
    ASSERT_FALSE(command.arguments.variants.empty());
    for (const std::string& text : command.arguments.variants) EXPECT_EQ(Variant::parse(text).text(), text);
  }
}

}  // namespace
}  // namespace mxlm::cli
