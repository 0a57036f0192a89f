#include <fmt/ranges.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/outputs.hpp"
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
  check_outputs({{"--html", files.html}, {"--csv", files.csv}, {"--markdown", files.markdown}});
  report::Record record;
  for (const std::string& path : arguments.results) {
    const FileView file = FileView::map(path);
    report::add_json(record, path, file.text());
  }
  Attempts attempts;
  write_reports(record, files, attempts);
  if (!attempts.failures().empty()) fail("{}", fmt::join(attempts.failures(), " "));
}

}  // namespace

void write_reports(const report::Record& record, const ReportFiles& files, Attempts& attempts) {
  const auto write = [&](const char* option, const std::string& path, const auto& render) {
    if (!path.empty()) attempts.attempt(option, [&] { write_file(path, render(record)); });
  };
  write("--csv", files.csv, [&](const report::Record& all) { return report::render_csv(all, files.formulas()); });
  write("--markdown", files.markdown, report::render_markdown);
  write("--html", files.html, report::render_html);
}

void add_report(CLI::App& app) {
  auto arguments = std::make_shared<ReportArguments>();
  ReportArguments& a = *arguments;
  CLI::App* command = app.add_subcommand("report", "A page, CSV or Markdown table of the JSON files that eval wrote");
  command->add_option("RESULT", a.results, "JSON files of 'mxlm eval --json'")->required()->type_name("FILE");
  command->add_option("-o,--output,--html", a.output, "Write one self-contained HTML page here ('-' is stdout)")
      ->type_name("FILE");
  command->add_option("--csv", a.files.csv, "Write one row per run and variant with all figures here ('-' is stdout)")
      ->type_name("FILE");
  command->add_flag("--csv-raw", a.files.csv_raw, kCsvRawHelp);
  command->add_option("--markdown", a.files.markdown, "Write the table in Markdown here ('-' is stdout)")
      ->type_name("FILE");
  command->footer("Example: mxlm report llama.json phi.json -o compared.html");
  command->callback([arguments] {
    try {
      run_report(*arguments);
    } catch (const std::bad_alloc&) {
      fail("There is not enough memory for these results; give fewer files, or files with fewer variants.");
    }
  });
}

}  // namespace mxlm::cli
