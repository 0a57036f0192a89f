#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "io/documents.hpp"
#include "io/file.hpp"
#include "load/load.hpp"

namespace mxlm::cli {
namespace {

struct Options {
  std::string model;
  std::string text;
  bool special = false;
  bool decode = false;
};

std::vector<int32_t> parse_ids(const std::string& text, const std::string& name) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_array()) fail("{} is not a JSON list of token ids; give a list as 'mxlm tokenize' prints it", name);
  std::vector<int32_t> ids;
  ids.reserve(json.size());
  for (const auto& value : json) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > 0x7fffffffU) {
      fail("{}: '{}' is not a token id", name, value.dump().substr(0, 60));
    }
    ids.push_back(value.get<int32_t>());
  }
  return ids;
}

void run(const Options& options) {
  const Tokenizer tokenizer = load_tokenizer(options.model);
  const DocumentSource source = read_text(options.text);
  std::string text;
  for (const Document& document : source.documents) text += document.text;
  if (options.decode) {
    write_file("-", tokenizer.decode(parse_ids(text, source.name)));
    return;
  }
  std::string out = "[";
  for (const int32_t id : tokenizer.encode(text, options.special)) {
    if (out.size() > 1) out += ", ";
    out += fmt::format_int(id).str();
  }
  out += "]\n";
  write_file("-", out);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Token ids of a text as a JSON list, or the text of ids");
  command
      ->add_option("MODEL", options->model,
                   "A tokenizer.json, a folder that holds one, a hub id or a name of 'mxlm models'")
      ->required()
      ->type_name("MODEL");
  command->add_option("--text", options->text, "The text (with --decode: the ids) to read; - is stdin")
      ->required()
      ->type_name("FILE");
  command->add_flag("--special", options->special, "Add the special tokens of the tokenizer's template");
  command->add_flag("--decode", options->decode, "Read a JSON list of ids and print their text");
  command->footer("Example: mxlm tokenize models/booklet-7m --text data/alice.txt");
  command->callback([options] { run(*options); });
}

}  // namespace mxlm::cli
