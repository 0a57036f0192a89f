#include <fmt/format.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "cli/report_files.hpp"
#include "io/file.hpp"
#include "report/page.hpp"

namespace mxlm::cli {
namespace {

struct ReportArguments {
  std::vector<std::string> results;
  std::string output;
  ReportFiles files;
};

void run_report(const ReportArguments& arguments) {
  ReportFiles files = arguments.files;
  files.html = arguments.output;
  if (!files.any()) fail_usage("Nothing to write; give -o OUT.html, --csv FILE or --markdown FILE.");
  if (files.to_stdout() > 1) fail_usage("Only one of -o, --csv and --markdown can be '-', standard output.");
  report::Record record;
  for (const std::string& path : arguments.results) {
    const FileView file = FileView::map(path);
    report::add_json(record, path, file.text());
  }
  write_reports(record, files);
}

}  // namespace

void write_reports(const report::Record& record, const ReportFiles& files) {
  if (!files.csv.empty()) write_file(files.csv, report::render_csv(record, files.formulas()));
  if (!files.markdown.empty()) write_file(files.markdown, report::render_markdown(record));
  if (!files.html.empty()) write_file(files.html, report::render_html(record));
}

void write_reports(const std::string& json, const ReportFiles& files) {
  report::Record record;
  report::add_json(record, "", json);
  write_reports(record, files);
}

void add_csv_raw(CLI::App& command, ReportFiles& files) {
  command.add_flag("--csv-raw", files.csv_raw,
                   "In CSV files: leave names that a spreadsheet would compute as they are, without an apostrophe");
}

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<ReportArguments>();
  ReportArguments& a = *arguments;
  CLI::App* command = app.add_subcommand("report", "A page, CSV or Markdown table of the JSON files that eval wrote");
  command->add_option("RESULT", a.results, "JSON files of 'mxlm eval --json'")->required();
  command->add_option("-o,--output,--html", a.output, "Write one self-contained HTML page here ('-' is stdout)");
  command->add_option("--csv", a.files.csv, "Write one row a run and variant with all figures here ('-' is stdout)");
  add_csv_raw(*command, a.files);
  command->add_option("--markdown", a.files.markdown, "Write a table for a paste here ('-' is stdout)");
  command->footer("Example: mxlm report llama.json phi.json -o compared.html");
  command->callback([arguments] {
    try {
      run_report(*arguments);
    } catch (const std::bad_alloc&) {
      fail(
          "The memory of this process does not suffice for these results; give fewer files, or files of fewer "
          "variants.");
    }
  });
}

}  // namespace mxlm::cli
