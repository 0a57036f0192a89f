#include "cli/options.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.hpp"
#include "base/quote.hpp"
#include "cli/progress.hpp"

namespace mxlm::cli {

GlobalOptions& global_options() {
  static GlobalOptions options;
  return options;
}

LoadedModel load_model_by_name(const std::string& model, bool with_tokenizer, const std::string& adapter) {
  ProgressLine line(model, global_options().quiet);
  return load_model(
      model, with_tokenizer, [&line](const hub::FetchProgress& progress) { line.update(progress); }, adapter);
}

api::Model open_model_by_name(const std::string& model, const std::string& adapter) {
  ProgressLine line(model, global_options().quiet);
  return api::open_model(model, adapter, [&line](const hub::FetchProgress& progress) { line.update(progress); });
}

void add_model(CLI::App& command, std::string& model, std::string& adapter) {
  command.add_option("MODEL", model, "A folder, a hub id (org/name) or a name of 'mxlm models'; none = booklet-7m")
      ->type_name("MODEL");
  add_adapter(command, adapter);
}

void add_adapter(CLI::App& command, std::string& adapter) {
  command.add_option("--adapter", adapter, "The folder of a LoRA adapter (peft) to merge into the model's weights")
      ->type_name("DIR");
}

void print_result(std::string_view result) {
  if (global_options().follows()) return;
  const std::string text = printable_lines(result);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail("The result cannot be written to standard output ({}); read it to its end, or redirect it to a file.",
         std::strerror(errno));
  }
}

}  // namespace mxlm::cli
