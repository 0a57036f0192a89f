// Any bytes as the file of --config: either an Error, or arguments of the command's own options at the end.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "cli/config_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  struct Command {
    CLI::App app;
    CLI::App* eval = app.add_subcommand("eval");
    std::string config, text;
    std::vector<std::string> mx;
    bool quiet = false;
    Command() {
      eval->add_option("--config", config);
      eval->add_option("--text", text)->take_last();
      eval->add_option("--mx", mx);
      eval->add_flag("--quiet", quiet);
    }
  };
  static const Command command;
  const std::vector<std::string> given{"eval", "--config", "fuzz", "--", "model"};
  try {
    const auto all =
        mxlm::cli::with_config_text(*command.eval, {reinterpret_cast<const char*>(data), size}, "fuzz", given);
    if (all.size() < given.size()) std::abort();
    for (size_t i = 0; i < all.size(); ++i) {
      if (i < 3 ? all[i] == given[i] : i + 2 >= all.size() && all[i] == given[i + 5 - all.size()]) continue;
      if (all[i] != "--quiet" && !all[i].starts_with("--text=") && !all[i].starts_with("--mx=")) std::abort();
    }
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
