#include "cli/values.hpp"

#include <algorithm>
#include <string_view>

#include "cli/former_names.hpp"
#include "hub/data_sets.hpp"
#include "load/registry.hpp"
#include "mx/format.hpp"
#include "mxlm/options.hpp"
#include "protocols/protocol.hpp"
#include "variants/shorthands.hpp"

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
  for (const mx::ReferenceFormat& stage : mx::kReferenceFormats) words.emplace_back(stage.name);
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

std::vector<ValueKind> make_kinds() {
  std::vector<ValueKind> all = {
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
      {"ROUNDING", names_of(mx::kRoundings), false},
      {"UNIT", {"linear", "role", "layer"}, false},
      {"DEVICE", {"auto", "cpu", "cuda", "cuda:0"}, false},
      {"SHELL", {"bash", "zsh", "fish"}, false},
      {"FIELD", {}, false},
      {"GLOB", {}, false},
      {"N", {}, false},
      {"F", {}, false},
  };
  for (const auto& row : api::option_table()) {
    if (const auto* choice = std::get_if<api::Choice<api::EvaluateOptions>>(&row.member)) {
      all.push_back({row.value, choice->words, false});
    }
  }
  return all;
}

const std::vector<ValueKind>& kinds() {
  static const std::vector<ValueKind> all = make_kinds();
  return all;
}

const ValueKind& kind_of_word(std::string_view word) {
  static const ValueKind none;
  const auto found = std::find_if(kinds().begin(), kinds().end(), [&](const ValueKind& k) { return k.word == word; });
  return found == kinds().end() ? none : *found;
}

}  // namespace

const ValueKind& value_kind(const CLI::Option& option) {
  // The text after a colon holds the bounds of a number.
  const std::string type = option.get_type_name();
  const std::string_view word = std::string_view(type).substr(0, type.find(':'));
  if (word == "FLOAT") return kind_of_word("F");
  return kind_of_word(word == "INT" || word == "UINT" ? "N" : word);
}

const std::vector<std::string>& kind_words(std::string_view word) { return kind_of_word(word).words; }

bool takes_several(const CLI::Option& option) { return option.get_expected_max() > 1; }

std::vector<const CLI::Option*> named_options(const CLI::App& command) {
  return command.get_options([&](const CLI::Option* option) {
    return option->nonpositional() && !option->get_lnames().empty() && option != command.get_help_ptr() &&
           !is_former_name(*option);
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
