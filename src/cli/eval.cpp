// mxlm eval, and the evaluation that eval, suite and sweep share.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "cli/eval_options.hpp"
#include "cli/options.hpp"
#include "cli/outputs.hpp"
#include "cli/progress.hpp"
#include "io/documents.hpp"
#include "io/sha256.hpp"
#include "journal/journal.hpp"
#include "library/state.hpp"
#include "ranks/follow.hpp"
#include "report/report.hpp"
#include "run/evaluate.hpp"

namespace mxlm::cli {

/// What went wrong in a command with several runs.
struct Evaluations::Failures {
  std::vector<std::string> runs;  // the runs that failed
  bool interrupted = false;       // before the first shard of a run
  void note(const std::string& run, const Error& error) {
    log_error("{}: {}", run, error.what());
    runs.push_back(run);
  }
};

namespace {

/// The current name of a data set: the prototype's `wikitext` is wikitext2. Splits and existing paths stay as they are.
std::string modern_data_name(const std::string& name) {
  constexpr std::string_view kOld = "wikitext";
  const std::string head = name.substr(0, name.find(':'));
  std::error_code error;
  if (head != kOld || std::filesystem::exists(name, error) || std::filesystem::exists(head, error)) return name;
  return "wikitext2" + name.substr(head.size());
}

api::Data read_data_set(const std::string& name, const EvalArguments& arguments) {
  ProgressLine line(name, global_options().quiet);
  return api::read_data(modern_data_name(name), arguments,
                        [&line](const hub::FetchProgress& progress) { line.update(progress); });
}

api::Data read_texts(const std::vector<std::string>& paths) {
  if (paths.empty()) {
    log_info("no --text or --data given: using the embedded text, Alice's Adventures in Wonderland");
    return api::Data::embedded();
  }
  DocumentSource all = read_text(paths.front());
  std::string hashes = all.sha256;
  for (size_t i = 1; i < paths.size(); ++i) {
    DocumentSource next = read_text(paths[i]);
    std::ranges::move(next.documents, std::back_inserter(all.documents));
    all.invalid_utf8 += next.invalid_utf8;
    all.name += " + " + next.name;
    hashes += next.sha256;
  }
  if (paths.size() > 1) {
    all.sha256 = sha256_hex(std::as_bytes(std::span(hashes)));
    for (size_t i = 0; i < all.documents.size(); ++i) all.documents[i].subset = paths[i];
  }
  return api::data_of(std::move(all));
}

/// The folder for the journals of runs without --journal; "" = such runs keep no journal.
std::filesystem::path journal_root(const EvalArguments& arguments) {
  if (arguments.no_journal) return {};
  const auto folder_of = [](const char* name) {
    const char* const value = std::getenv(name);
    // The XDG specification requires programs to ignore paths that are not absolute.
    return value != nullptr && value[0] == '/' ? std::filesystem::path(value) : std::filesystem::path();
  };
  const std::filesystem::path state = folder_of("XDG_STATE_HOME"), home = folder_of("HOME");
  if (!state.empty()) return state / "mxlm" / "journals";
  return home.empty() ? home : home / ".local" / "state" / "mxlm" / "journals";
}

/// Finds mistakes in options that only commands have.
void check_arguments(const EvalArguments& a) {
  if (a.no_journal && (a.resume || a.shared || !a.journal.empty())) {
    fail_usage("--no-journal excludes --journal, --resume and --shared; leave it out.");
  }
  api::check_options(a);
  if (a.shared && global_options().ranks != nullptr) {
    fail_usage("Under mpirun rank 0 keeps the journal; leave out --shared or mpirun.");
  }
  if (a.resume && a.journal.empty() && journal_root(a).empty()) {
    fail_usage("--resume finds no journal, because HOME is not set; name the journal with --journal.");
  }
  if (!a.text.empty() && !data_names(a).empty()) {
    fail_usage("--text and --data exclude one another; leave one of them out.");
  }
}

/// The devices of this process. Under mpirun a rank gets its share of the host's devices.
DeviceSet devices_of(const EvalArguments& arguments) {
  DeviceSet devices = api::choose_devices(arguments);
  const Ranks* const ranks = global_options().ranks;
  return ranks == nullptr ? devices : share_devices(std::move(devices), DeviceRequest::parse(arguments.device), *ranks);
}

RunResult evaluate_model(const std::string& name, const std::string& adapter, const api::Data& data,
                         const ResolvedOptions& options) {
  const api::Model model = open_model_by_name(name, adapter);
  RunResult run;
  {
    ProgressLine line(model.name(), global_options().quiet);
    run = api::run(model, data, options, [&line](const Progress& progress) { line.update(progress); });
  }
  run.command = global_options().command_line;
  api::warn_about(run);
  if (run.complete || run.windows > 0) return run;
  log_info("no shard was finished: files of earlier results stay as they are");
  if (options.asked.journal.empty() && !run.journal_folder.empty()) remove_journal(run.journal_folder);
  if (!run.stopped.empty()) throw Error(run.stopped);
  throw Interrupted();
}

}  // namespace

bool followed(const EvalArguments& arguments) {
  GlobalOptions& global = global_options();
  if (!global.follows()) return false;
  global.followed = follow(*global.ranks, [&] { return devices_of(arguments); });
  return true;
}

Evaluations::Evaluations(const EvalArguments& arguments) {
  check_arguments(arguments);
  devices_ = devices_of(arguments);
  for (const std::string& name : data_names(arguments)) data_.push_back(read_data_set(name, arguments));
  if (data_.empty()) data_.push_back(read_texts(arguments.text));
  for (const api::Data& data : data_) {
    const DocumentSource& source = data.state().source;
    if (source.invalid_utf8 > 0) {
      log_warn("'{}': {} of {} documents hold invalid UTF-8, which became U+FFFD", source.name, source.invalid_utf8,
               source.documents.size());
    }
  }
}

EvalResult Evaluations::run(const std::vector<std::string>& models, const EvalArguments& arguments, Outputs& outputs,
                            Failures* failures) const {
  EvalResult result;
  result.machine = machine_info(devices_);
  size_t number = 0;
  for (const std::string& name : models) {
    for (const api::Data& data : data_) {
      ResolvedOptions options = api::resolve_options(arguments, data, devices_);
      if (!options.asked.journal.empty() && models.size() * data_.size() > 1) {
        options.asked.journal /= fmt::format("run-{}", ++number);
      }
      options.journal_root = journal_root(arguments);
      options.ranks = global_options().ranks;
      options.mixed_ranks = arguments.mixed_ranks;
      outputs.attach(options);
      const std::string shown = name.empty() ? "the embedded model" : name;
      const std::string run = data_.size() == 1 ? shown : fmt::format("{} on {}", shown, data.state().source.name);
      try {
        result.runs.push_back(evaluate_model(name, arguments.adapter, data, options));
      } catch (const Interrupted&) {
        if (failures == nullptr || result.runs.empty()) throw;
        failures->interrupted = true;
        return result;
      } catch (const UsageError& error) {
        if (failures == nullptr || result.runs.empty()) throw;
        failures->note(run, error);
        continue;
      } catch (const Error& error) {
        if (failures == nullptr) throw;
        failures->note(run, error);
        continue;
      }
      const RunResult& last = result.runs.back();
      if (last.complete) continue;
      if (failures == nullptr || last.stopped.empty()) return result;
      failures->note(run, Error(last.stopped));
    }
  }
  return result;
}

EvalResult Evaluations::run(const std::vector<std::string>& models, const EvalArguments& arguments,
                            Outputs& outputs) const {
  return run(models, arguments, outputs, nullptr);
}

void Evaluations::run_and_report(const std::vector<std::string>& models, const EvalArguments& arguments,
                                 Outputs& outputs) const {
  const size_t runs = models.size() * data_.size();
  Failures failures;
  const EvalResult result = run(models, arguments, outputs, runs > 1 ? &failures : nullptr);
  if (!result.runs.empty()) outputs.write(result, {.table = render_table, .csv = {}});
  if (failures.interrupted) throw Interrupted();
  if (!failures.runs.empty()) {
    fail("{} of {} {} could not be evaluated ({}); the log above gives the reasons.", failures.runs.size(), runs,
         data_.size() == 1 ? "models" : "runs", fmt::join(failures.runs, ", "));
  }
}

void add_eval(CLI::App& app) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command =
      app.add_subcommand("eval", "Baseline and variants side by side: perplexity, KL divergence, speed");
  add_models(*command, *arguments);
  add_eval_options(*command, *arguments);
  command->footer(
      "Example: mxlm eval ./SmolLM2-135M --text wiki.test.raw --mx attention=mxfp8,mlp=mxfp8 --mx linear=mxfp4 --json "
      "out.json");
  command->callback([command, arguments] {
    if (followed(*arguments)) return;
    // Report mistakes of the command line before a large data set is read.
    expand_variants(*command, *arguments);
    const std::vector<std::string> models = model_names(*arguments);
    Outputs outputs(*arguments, models.size());
    Evaluations(*arguments).run_and_report(models, *arguments, outputs);
  });
}

}  // namespace mxlm::cli
