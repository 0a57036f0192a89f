#include "cli/values.hpp"

#include <algorithm>
#include <map>
#include <string_view>

#include "eval/protocol.hpp"
#include "eval/registry.hpp"
#include "eval/shorthands.hpp"
#include "io/hub/data_sets.hpp"
#include "mx/format.hpp"

namespace mxlm::cli {
namespace {

using Words = std::vector<std::string>;

Words format_names() {
  Words words;
  for (const mx::NamedElement& element : mx::kElements) {
    words.emplace_back(element.name);
    for (const std::string_view alias : element.aliases) {
      if (!alias.empty()) words.emplace_back(alias);
    }
  }
  for (const mx::NamedStage& stage : mx::kStages) words.emplace_back(stage.name);
  return words;
}

template <typename Table>
Words names_of(const Table& table) {
  Words words;
  for (const auto& row : table) words.emplace_back(row.name);
  return words;
}

Words model_names() {
  Words words;
  for (const RegisteredModel& model : registered_models()) words.emplace_back(model.name);
  return words;
}

Words model_and_data_names() {
  Words words = model_names();
  words.insert(words.end(), hub::data_set_names().begin(), hub::data_set_names().end());
  return words;
}

const std::vector<ValueKind>& kinds() {
  static const std::vector<ValueKind> all = {
      {"FILE", {}, true},
      {"DIR", {}, true},
      {"MODEL", model_names(), true},
      {"DATA", hub::data_set_names(), true},
      {"NAME", model_and_data_names(), false},
      {"SUITE", suite_names(), false},
      {"PROTOCOL", protocol_names(), false},
      {"FORMAT", format_names(), false},
      {"VARIANT", {"attention=", "mlp=", "linear=", "lm_head=", "qk=", "pv="}, false},
      {"ROLES", {"attention", "mlp", "linear", "lm_head", "qk", "pv"}, false},
      {"TIER", tier_names(), false},
      {"RULE", names_of(mx::kScaleRules), false},
      {"ROUND", names_of(mx::kRoundings), false},
      {"UNIT", {"linear", "role", "layer"}, false},
      {"DTYPE", {"auto", "float32", "bfloat16"}, false},
      {"DEVICE", {"auto", "cpu", "cuda", "cuda:0"}, false},
      {"BOS", {"template", "always", "never"}, false},
      {"GEMM", {"exact", "fast"}, false},
      {"SHELL", {"bash", "zsh", "fish"}, false},
      {"FIELD", {}, false},
      {"GLOB", {}, false},
      {"N", {}, false},
      {"F", {}, false},
  };
  return all;
}

/// The kinds of options and positionals that take text, by their names.
const std::map<std::string_view, std::string_view>& kinds_by_option() {
  static const std::map<std::string_view, std::string_view> map = {
      {"MODEL", "MODEL"},     {"--models", "MODEL"},     {"SUITE", "SUITE"},      {"INPUT", "FILE"},
      {"RESULT", "FILE"},     {"NAME", "NAME"},          {"SHELL", "SHELL"},      {"--text", "FILE"},
      {"--tokens", "FILE"},   {"--output", "FILE"},      {"--json", "FILE"},      {"--html", "FILE"},
      {"--csv", "FILE"},      {"--markdown", "FILE"},    {"--per-token", "FILE"}, {"--config", "FILE"},
      {"--log-file", "FILE"}, {"--journal", "DIR"},      {"--adapter", "DIR"},    {"--data", "DATA"},
      {"--datasets", "DATA"}, {"--field", "FIELD"},      {"--include", "GLOB"},   {"--protocol", "PROTOCOL"},
      {"--mx", "VARIANT"},    {"--mx-format", "FORMAT"}, {"--format", "FORMAT"},  {"--formats", "FORMAT"},
      {"--rules", "RULE"},    {"--rounds", "ROUND"},     {"--roles", "ROLES"},    {"--sensitivity", "UNIT"},
      {"--tier", "TIER"},     {"--dtype", "DTYPE"},      {"--device", "DEVICE"},  {"--bos", "BOS"},
      {"--gemm", "GEMM"},
  };
  return map;
}

const ValueKind& kind_of_word(std::string_view word) {
  static const ValueKind none;
  const auto found = std::find_if(kinds().begin(), kinds().end(), [&](const ValueKind& k) { return k.word == word; });
  return found == kinds().end() ? none : *found;
}

}  // namespace

const ValueKind& value_kind(const CLI::Option& option) {
  const auto& map = kinds_by_option();
  auto found = map.find(option.get_name());
  for (const std::string& name : option.get_lnames()) {
    if (found == map.end()) found = map.find("--" + name);
  }
  if (found != map.end()) return kind_of_word(found->second);
  const std::string type = option.get_type_name();
  if (type.starts_with("FLOAT")) return kind_of_word("F");
  if (type.starts_with("INT") || type.starts_with("UINT")) return kind_of_word("N");
  return kind_of_word("");
}

const std::vector<std::string>& kind_words(std::string_view word) { return kind_of_word(word).words; }

bool takes_several(const CLI::Option& option) { return option.get_expected_max() > 1; }

std::vector<const CLI::Option*> named_options(const CLI::App& command) {
  return command.get_options([&](const CLI::Option* option) {
    return option->nonpositional() && !option->get_lnames().empty() && option != command.get_help_ptr();
  });
}

void name_values(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_expected_min() == 0) continue;  // flags
    const ValueKind& kind = value_kind(*option);
    if (!kind.word.empty()) option->type_name(kind.word);
    if (option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw && option->get_items_expected_max() == 1) {
      option->take_last();
    }
  }
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) name_values(*command);
}

}  // namespace mxlm::cli
