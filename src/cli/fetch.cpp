// mxlm fetch: download into the Hugging Face cache.

#include "hub/fetch.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "base/suggest.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "cli/progress.hpp"
#include "hub/data_sets.hpp"
#include "io/file.hpp"
#include "load/load.hpp"
#include "load/registry.hpp"

namespace mxlm::cli {
namespace {

struct FetchArguments {
  std::string name;
  std::vector<std::string> include;
  bool data_set = false, dry_run = false;
};

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

/// The files of a data set that mxlm can read.
std::vector<std::string> data_files(const std::vector<hub::ListedFile>& files,
                                    const std::vector<std::string>& include) {
  const std::vector<std::string> readable = {"*.jsonl",    "*.jsonl.gz", "*.jsonl.zst", "*.json.gz",
                                             "*.json.zst", "*.parquet",  "*.txt"};
  std::vector<std::string> out;
  for (const hub::ListedFile& file : files) {
    if (matches(include.empty() ? readable : include, file.name)) out.push_back(file.name);
  }
  return out;
}

hub::FetchPlan make_plan(const FetchArguments& arguments, const hub::Options& options) {
  const auto& known = hub::data_set_names();
  const std::string head = arguments.name.substr(0, arguments.name.find(':'));
  if (std::find(known.begin(), known.end(), head) != known.end()) {
    return hub::plan_data_set(options, hub::parse_data_request(arguments.name));
  }
  if (arguments.data_set) {
    const auto repo = hub::parse_repo(arguments.name, hub::RepoKind::dataset);
    if (!repo) {
      fail_usage("{} is not a data set; give org/name, or one of {}.{}", quote(arguments.name), fmt::join(known, ", "),
                 suggestion(arguments.name, known));
    }
    return hub::plan_fetch(options, *repo, [&](const std::vector<hub::ListedFile>& files) {
      return data_files(files, arguments.include);
    });
  }
  const auto repo = hub_repo(arguments.name, options);
  if (!repo) {
    fail_usage("{} is not a model of the hub; give org/name, or a name that 'mxlm models' lists.{}",
               quote(arguments.name), suggestion(arguments.name, registered_names()));
  }
  return hub::plan_fetch(options, *repo, hub::model_files);
}

std::string describe(const hub::FetchPlan& plan) {
  std::string out = fmt::format("{} at {}\n", plan.repo.id, plan.commit);
  uint64_t total = 0, missing = 0;
  for (const hub::PlannedFile& file : plan.files) {
    out += fmt::format("  {:>12}  {:<9} {}\n",
                       file.size ? fmt::format("{:.1f} MB", static_cast<double>(*file.size) / 1e6) : "?",
                       file.cached ? "in cache" : "", file.name);
    total += file.size.value_or(0);
    missing += file.cached ? 0 : file.size.value_or(0);
  }
  out += fmt::format("{} files, {:.1f} MB; {:.1f} MB to download\n", plan.files.size(),
                     static_cast<double>(total) / 1e6, static_cast<double>(missing) / 1e6);
  return out;
}

void run_fetch(const FetchArguments& arguments) {
  const hub::Options options = hub::Options::from_environment();
  const hub::FetchPlan plan = make_plan(arguments, options);
  if (plan.files.empty()) {
    fail("The repository {} holds no files that mxlm reads{}.", quote(plan.repo.id),
         plan.repo.kind == hub::RepoKind::model ? "; is it a data set (--dataset)?" : "");
  }
  if (arguments.dry_run) {
    print_result(describe(plan));
    return;
  }
  ProgressLine line(plan.repo.id, global_options().quiet);
  const auto update = [&line](const hub::FetchProgress& progress) { line.update(progress); };
  const hub::Snapshot snapshot = plan.repo.kind == hub::RepoKind::model ? hub::fetch_model(options, plan.repo, update)
                                                                        : hub::fetch(options, plan, update);
  write_file("-", snapshot.folder.string() + "\n");  // programs read the path, so it is not made printable
}

}  // namespace

void add_fetch(CLI::App& app) {
  auto arguments = std::make_shared<FetchArguments>();
  FetchArguments& a = *arguments;
  CLI::App* command = app.add_subcommand("fetch", "Download a model or data set into the Hugging Face cache");
  command
      ->add_option("NAME", a.name,
                   fmt::format("org/name[@revision], a name of 'mxlm models', or a data set: {}; with [:SPLIT]",
                               fmt::join(hub::data_set_names(), ", ")))
      ->required()
      ->type_name("NAME");
  command->add_flag("--dataset", a.data_set, "org/name is a data set");
  command->add_option("--include", a.include, "Only the files of a data set that match, such as 'data/test-*.parquet'")
      ->expected(1)
      ->type_name("GLOB")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_flag("--dry-run", a.dry_run, "List the files and their sizes, download nothing");
  command->footer("Example: mxlm fetch HuggingFaceTB/SmolLM2-135M");
  command->callback([arguments] { run_fetch(*arguments); });
}

}  // namespace mxlm::cli
