#include "cli/help_format.hpp"

#include <sstream>
#include <string_view>

namespace mxlm::cli {
namespace {

constexpr size_t kWidth = 80, kTextColumn = 26;

/// Appends the words of `text` to `out`, whose last line is `column` wide. New lines begin at `indent`.
void add_words(std::string& out, const std::string& text, size_t column, size_t indent) {
  std::istringstream words(text);
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && column + 1 + word.size() > kWidth) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
}

std::string entry(const std::string& name, const std::string& text) {
  std::string out = "  " + name;
  if (out.size() + 2 > kTextColumn) {
    out += '\n' + std::string(kTextColumn, ' ');
  } else {
    out.resize(kTextColumn, ' ');
  }
  add_words(out, text, kTextColumn, kTextColumn);
  return out + '\n';
}

/// Wraps each line of a text separately; continuations are indented by two columns.
std::string wrapped(const std::string& text) {
  std::string out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    add_words(out, line, 0, 2);
    out += '\n';
  }
  return out;
}

}  // namespace

std::string option_value_text(const CLI::Option& option) {
  if (option.get_type_size() == 0 || option.get_expected_min() == 0) return "";
  // The text after a colon holds the bounds of a number. Help omits them; error messages show them.
  const std::string type = option.get_type_name();
  std::string out = type.substr(0, type.find(':'));
  if (!option.get_default_str().empty()) out += "=" + option.get_default_str();
  if (option.get_expected_max() == CLI::detail::expected_max_vector_size) out += " ...";
  return out;
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  std::string name = make_option_name(option, is_positional);
  const std::string value = option_value_text(*option);
  // The name of a positional already is the word for its value.
  if (!value.empty() && value != name)
    name += is_positional ? value.find(" ...") != value.npos ? " ..." : "" : " " + value;
  return entry(name, option->get_description() + (option->get_required() ? " (required)" : ""));
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return entry(command->get_name(), command->get_description());
}

std::string HelpFormatter::make_description(const CLI::App* app) const { return wrapped(app->get_description()); }

std::string HelpFormatter::make_footer(const CLI::App* app) const { return wrapped(app->get_footer()); }

}  // namespace mxlm::cli
