#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "base/system.hpp"
#include "cli/commands.hpp"
#include "cli/config_file.hpp"
#include "cli/help_format.hpp"
#include "cli/options.hpp"
#include "cli/parse_error.hpp"
#include "cli/values.hpp"
#include "cluster/ranks.hpp"
#include "io/cut_files.hpp"
#include "ranks/follow.hpp"
#include "ranks/team.hpp"

namespace {

/// Underscores are accepted in long options: --max_samples is --max-samples.
std::vector<std::string> normalized_arguments(int argc, char** argv) {
  std::vector<std::string> out;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument.rfind("--", 0) == 0) {
      for (size_t c = 2; c < argument.size() && argument[c] != '='; ++c) {
        if (argument[c] == '_') argument[c] = '-';
      }
    }
    out.push_back(std::move(argument));
  }
  return out;
}

/// One line on stderr. Never throws: stderr itself may be a closed pipe.
void complain(const char* what) noexcept {
  std::string line;
  try {
    line = mxlm::message_text(what);
    what = line.c_str();
  } catch (const std::bad_alloc&) {
    what = "Out of memory.";
  }
  for (const char* part : {"mxlm: ", what, "\n"}) std::fputs(part, stderr);
}

int run(int argc, char** argv) {
  CLI::App app{"What happens to a language model when its matrix products run in a Microscaling (MX) format?", "mxlm"};
  app.set_version_flag("--version", "mxlm " MXLM_VERSION);
  // Before the commands, which inherit it.
  app.formatter(std::make_shared<mxlm::cli::HelpFormatter>());
  app.require_subcommand(1);
  app.fallthrough();
  mxlm::cli::GlobalOptions& global = mxlm::cli::global_options();
  app.add_flag("--quiet", global.quiet, "No progress; warnings and errors stay");
  app.add_option("--log-file", global.log_file, "Write the log here too")->type_name("FILE");
  app.footer(
      "Example: mxlm eval --mx attention=mxfp8,mlp=mxfp4\nEvery command has --help with an example.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.");

  for (int i = 0; i < argc; ++i) {
    global.command_line += i > 0 ? " " + mxlm::shell_quote(argv[i]) : "mxlm";
  }

  mxlm::cli::add_eval(app);
  mxlm::cli::add_suite(app);
  mxlm::cli::add_report(app);
  mxlm::cli::add_inspect(app);
  mxlm::cli::add_logits(app);
  mxlm::cli::add_cast(app);
  mxlm::cli::add_sweep(app);
  mxlm::cli::add_tokenize(app);
  mxlm::cli::add_models(app);
  mxlm::cli::add_fetch(app);
  mxlm::cli::add_formats(app);
  mxlm::cli::add_bench(app);
  mxlm::cli::add_completion(app);
  mxlm::cli::add_man(app);
  mxlm::cli::name_values(app);

  mxlm::configure_logging(false, "");
  // After all options have their values, before any command runs.
  app.parse_complete_callback([&app, &global] {
    const bool follows = global.follows();
    mxlm::configure_logging(global.quiet || follows, follows ? "" : global.log_file);
    if (follows) mxlm::current_log()->set_pattern(fmt::format("mxlm: rank {}: %l: %v", global.ranks->rank()));
    // Where nothing is evaluated there is nothing to share: rank 0 does it alone.
    const auto names = app.get_subcommands();
    const bool shares = std::any_of(names.begin(), names.end(), [](const CLI::App* command) {
      return command->get_name() == "eval" || command->get_name() == "sweep" || command->get_name() == "suite";
    });
    if (follows && !shares) throw CLI::Success();
  });
  try {
    auto arguments = mxlm::cli::with_config_file(app, normalized_arguments(argc, argv));
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    mxlm::cli::print_result(app.help());
  } catch (const CLI::CallForVersion& e) {
    mxlm::cli::print_result(std::string(e.what()) + "\n");
  } catch (const CLI::Success&) {
    return 0;
  } catch (const CLI::ParseError& e) {
    mxlm::fail_usage("{}", mxlm::cli::describe(app, e));
  }
  return 0;
}

/// run(), and what became of it as an exit code.
int run_and_tell(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const mxlm::UsageError& e) {
    complain(e.what());
    return 2;
  } catch (const mxlm::Error& e) {
    complain(e.what());
    return 1;
  } catch (const mxlm::Interrupted&) {
    complain("interrupted");
    return 130;
  } catch (const std::bad_alloc&) {
    complain("Out of memory; give fewer variants, a smaller --batch-size, or --stream.");
    return 1;
  } catch (const std::exception& e) {
    complain("internal error, which should be reported:");
    complain(e.what());
    return 1;
  }
}

/// A rank that another leads. What goes wrong here, rank 0 tells, if it needs this rank at all.
int run_following(int argc, char** argv, mxlm::Ranks& ranks) {
  std::string error = "it was started with another command";
  try {
    run(argc, argv);
  } catch (const std::exception& e) {
    error = e.what();
  }
  if (const auto code = mxlm::cli::global_options().followed) return *code;
  return mxlm::follow(ranks, [&error]() -> mxlm::DeviceSet { throw mxlm::Error(error); });
}

}  // namespace

int main(int argc, char** argv) {
  mxlm::open_standard_descriptors();
  mxlm::forbid_core_dumps();
  mxlm::install_interrupt_handlers();
  mxlm::explain_cut_files();
  std::unique_ptr<mxlm::Ranks> ranks;
  try {
    ranks = mxlm::join_ranks();
    mxlm::cli::global_options().ranks = ranks.get();
    if (ranks && !ranks->leads()) return run_following(argc, argv, *ranks);
  } catch (const std::exception& e) {
    complain(e.what());
    return 1;
  }
  const int code = run_and_tell(argc, argv);
  if (ranks) mxlm::dismiss(*ranks, code);
  return code;
}
