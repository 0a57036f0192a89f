// mxlm cast: quantise the tensors of a safetensors file.

#include <memory>
#include <string>

#include "cli/commands.hpp"
#include "mxlm/mxlm.hpp"

namespace mxlm::cli {

void add_cast(CLI::App& app) {
  struct Arguments {
    std::string input, output;
    api::CastFileOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  api::CastFileOptions& options = arguments->options;
  CLI::App* command = app.add_subcommand("cast", "Quantise the tensors of a safetensors file");
  command->add_option("INPUT", arguments->input, "A safetensors file")->required()->type_name("FILE");
  command->add_option("-o,--output", arguments->output, "The safetensors file to write")->required()->type_name("FILE");
  command->add_option("--format", options.spec, "A format and its keys: mxfp4, mxfp8_e5m2@block=16@rule=rceil")
      ->required()
      ->type_name("FORMAT");
  command->add_flag("--packed", options.packed, "Write codes (U8) and, as NAME.scale, scales (E8M0) instead of values");
  command->add_option("--threads", options.threads, "Threads (default: the cores this process may use)")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Every floating tensor is quantised along its last axis and decoded to F32; others are copied.\n"
      "Example: mxlm cast model.safetensors -o mxfp4.safetensors --format mxfp4@rule=rceil");
  command->callback([arguments] {
    arguments->options.input = arguments->input;
    arguments->options.output = arguments->output;
    api::cast_file(arguments->options);
  });
}

}  // namespace mxlm::cli
