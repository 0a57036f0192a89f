#include "cli/outputs.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <new>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "cli/options.hpp"
#include "io/file.hpp"
#include "io/output_file.hpp"
#include "journal/journal.hpp"
#include "report/report.hpp"

namespace mxlm::cli {
namespace {

/// Says how the user gets outputs that could not be written. `json` is the file that holds the result, or "".
std::string way_to_results(const EvalResult& result, const std::string& json) {
  const auto kept = [](const RunResult& run) { return !run.journal_folder.empty() && run.journal_failure.empty(); };
  if (!std::all_of(result.runs.begin(), result.runs.end(), kept)) {
    return json.empty() ? "No journal keeps the result, which has to be computed again."
                        : fmt::format("'mxlm report {}' makes pages and tables from the JSON.", shell_quote(json));
  }
  return fmt::format(
      "The result is kept in the journal {}{}: the same command with --resume {}.",
      quote(result.runs.front().journal_folder),
      result.runs.size() > 1 ? fmt::format(" and those of {} more runs", result.runs.size() - 1) : "",
      result.runs.back().complete ? "writes it without computing it again" : "goes on from there and writes it");
}

void settle_journals(const EvalResult& result, const EvalArguments& arguments) {
  std::string failure;
  for (const RunResult& run : result.runs) {
    if (failure.empty()) failure = run.journal_failure;
    // Remove an automatic journal, because the result has been written.
    if (arguments.journal.empty() && !run.journal_folder.empty() && run.journal_failure.empty()) {
      remove_journal(run.journal_folder);
    }
  }
  if (!failure.empty()) fail("The results above are complete, but {}; free space or name another folder.", failure);
}

}  // namespace

void Attempts::attempt(std::string_view what, const std::function<void()>& action) {
  std::string why;
  try {
    action();
    ++succeeded_;
    return;
  } catch (const std::bad_alloc&) {
    why = "There is not enough memory.";
  } catch (const std::exception& error) {
    why = error.what();
  }
  failures_.push_back(fmt::format("{}: {}", what, why));
}

void check_outputs(const std::vector<std::pair<std::string, std::string>>& places) {
  namespace fs = std::filesystem;
  std::map<fs::path, std::string> files;
  for (const auto& [option, path] : places) {
    if (path.empty()) continue;
    std::error_code ignored;
    // A device or a pipe may take several outputs.
    if (path != "-" && fs::exists(path, ignored) && !fs::is_regular_file(path, ignored)) continue;
    const fs::path file = path == "-" ? fs::path(path) : fs::weakly_canonical(fs::absolute(path, ignored), ignored);
    const auto [before, is_new] = files.emplace(file, option);
    if (is_new) continue;
    if (path == "-") fail_usage("Only one of {} and {} can be '-', standard output.", before->second, option);
    fail_usage("{} and {} name the same file, {}; give each its own.", before->second, option, quote(path));
  }
  for (const auto& [option, path] : places) {
    if (!path.empty()) check_output(path);
  }
}

Outputs::Outputs(const EvalArguments& arguments, size_t models)
    : arguments_(arguments),
      per_token_((check_outputs({{"--json", arguments.json},
                                 {"--html", arguments.html},
                                 {"--csv", arguments.csv},
                                 {"--markdown", arguments.markdown},
                                 {"--per-token", arguments.per_token}}),
                  arguments.per_token),
                 models * std::max<size_t>(data_names(arguments).size(), 1), arguments.formulas()) {}

void Outputs::write(const EvalResult& result, const ResultViews& views) const {
  const ReportFiles& files = arguments_;
  Attempts attempts;
  if (!arguments_.per_token.empty()) attempts.attempt("--per-token", [&] { per_token_.finish(); });
  std::string json;
  if (!arguments_.json.empty() || files.any()) attempts.attempt("JSON", [&] { json = render_json(result); });
  std::string written_json;
  if (!arguments_.json.empty() && !json.empty()) {
    attempts.attempt("--json", [&] {
      write_file(arguments_.json, json);
      if (arguments_.json != "-") written_json = arguments_.json;
    });
  }
  ReportFiles reports = files;
  if (views.csv && !files.csv.empty()) {
    attempts.attempt("--csv", [&] { write_file(files.csv, views.csv(result, files.formulas())); });
    reports.csv.clear();
  }
  if (reports.any() && !json.empty()) {
    report::Record record;
    const size_t before = attempts.failures().size();
    attempts.attempt("--html, --csv, --markdown", [&] { report::add_json(record, "", json); });
    if (attempts.failures().size() == before) write_reports(record, reports, attempts);
  }
  if (arguments_.json != "-" && files.to_stdout() == 0) {
    attempts.attempt("table", [&] { print_result(views.table(result)); });
  }
  const RunResult& last = result.runs.back();
  if (!attempts.failures().empty()) {
    if (!last.stopped.empty()) log_error("{}", last.stopped);
    fail("{} {}{}", fmt::join(attempts.failures(), " "), attempts.succeeded() > 0 ? "All else was written. " : "",
         way_to_results(result, written_json));
  }
  if (!last.stopped.empty()) throw Error(last.stopped);
  if (!last.complete) throw Interrupted();
  settle_journals(result, arguments_);
}

}  // namespace mxlm::cli
