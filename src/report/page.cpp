#include "report/page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "io/embedded.hpp"
#include "io/file.hpp"
#include "report/plots.hpp"
#include "report/sections.hpp"

namespace mxlm::report {
namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The digest of an inline style or script in the form of a Content-Security-Policy.
std::string policy_hash(std::string_view content) {
  const std::string hex = sha256_hex(std::as_bytes(std::span(content.data(), content.size())));
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bits = bits << 8 | static_cast<uint32_t>(std::stoul(hex.substr(i, 2), nullptr, 16));
    for (count += 8; count >= 6; count -= 6) out += kDigits[bits >> (count - 6) & 63];
  }
  if (count > 0) out += kDigits[bits << (6 - count) & 63];
  while (out.size() % 4 != 0) out += '=';
  return "'sha256-" + out + "'";
}

std::string section(const Run& run, const char* name, const char* title, const std::string& content) {
  if (content.empty()) return {};
  return fmt::format("<section id=\"{}-{}-{}\"><h3>{}</h3>\n{}</section>\n", name, run.file, run.index, title, content);
}

std::string subtitle(const Run& run) {
  std::string out =
      fmt::format("{} · protocol {}, context {} · {}", breakable(run.data.name), escape(run.protocol.name),
                  count_text(run.protocol.context), plural(run.windows, "window"));
  if (!run.variants.empty()) out += " · " + plural(run.variants[0].figures.tokens, "token");
  return out;
}

/// The page so far. Each part is bounded; this bounds their sum.
class Page {
 public:
  explicit Page(const Limits& limits) : limits_(limits) {}
  Page& operator+=(std::string_view more) {
    text_ += more;
    if (text_.size() <= limits_.output_bytes) return *this;
    fail(
        "The page would have more than {} MB, which is too large for a browser or for the memory of this process; "
        "give fewer files, or files of fewer variants.",
        limits_.output_bytes / 1'000'000);
  }
  std::string take() { return std::move(text_); }

 private:
  const Limits& limits_;
  std::string text_;
};

void add_run_section(Page& out, const Run& run, const File& file, bool alone) {
  out += fmt::format("<section class=\"run\" id=\"run-{}-{}\">\n", run.file, run.index);
  const std::string name = breakable(model_name(run));
  out += alone ? fmt::format("<h1><span class=\"v\">{}</span></h1>\n", name)
               : fmt::format("<h2><span class=\"v\">{}</span></h2>\n", name);
  out += fmt::format("<p class=\"subtitle\">{}</p>\n", subtitle(run));
  out += summary(run);
  if (!run.variants.empty()) {
    out += section(run, "variants", "Variants", variant_table(run));
    out += section(run, "tradeoff", "What the bits cost", tradeoff_plots(run));
  }
  out += section(run, "subsets", "By subset", subset_bars(run));
  out += section(run, "layers", "Error by layer", layer_heat_map(run));
  out += section(run, "linears", "Error by Linear", linear_errors(run));
  out += section(run, "exponents", "Exponents", exponent_histograms(run));
  if (const std::string pairs = pair_table(run); !pairs.empty()) {
    out += section(run, "pairs", "Variants against one another",
                   details(plural(static_cast<int64_t>(run.pairs.size()), "pair"), pairs));
  }
  std::string more;
  if (const std::string table = distribution_table(run); !table.empty()) {
    more += details("KL divergence and probabilities in detail", table);
  }
  if (const std::string table = cost_table(run); !table.empty()) more += details("Time and memory", table);
  out += section(run, "more", "In detail", more);
  out += section(run, "replaced", "What was replaced", replaced_list(run));
  out += section(run, "repeat", "To repeat it", provenance(run, file));
  out += "</section>\n";
}

/// One line per run and variant, above the sections of several runs.
std::string overview(const Record& record) {
  std::string out = table_open("All runs",
                               {{.label = "Model", .number = false},
                                {.label = "Data", .number = false},
                                {.label = "Variant", .number = false},
                                {.label = "PPL", .columns = 2},
                                {.label = "ΔPPL, %", .columns = 2},
                                {.label = "KL, mnats", .columns = 2},
                                {.label = "Top-1, %", .columns = 2},
                                {.label = "Tok/s"}},
                               "sortable");
  for (const Run& run : record.runs) {
    for (size_t i = 0; i < run.variants.size(); ++i) {
      const Variant& v = run.variants[i];
      out += fmt::format("<tr><th scope=\"row\" class=\"t\"><a class=\"v\" href=\"#run-{}-{}\">{}</a></th>", run.file,
                         run.index, breakable(shorten(model_name(run), 80)));
      out += fmt::format("<td><span class=\"v\">{}</span></td><td><span class=\"v\">{}</span></td>",
                         breakable(shorten(run.data.name, 40)), breakable(v.name));
      out += measured_cells(ppl_figure(run, i));
      if (v.figures.vs_baseline) {
        out += measured_cells(ppl_change_figure(run, i)) + measured_cells(kld_figure(run, i)) +
               measured_cells(top1_figure(run, i));
      } else {
        for (int column = 0; column < 6; ++column) out += empty_cell();
      }
      out += figure_cell({source(run) / "variants" / i / "tokens_per_second", v.tokens_per_second},
                         speed_text(v.tokens_per_second));
      out += "</tr>\n";
    }
  }
  return out + table_close();
}

}  // namespace

std::string provenance(const Run& run, const File& file) {
  std::string out = "<dl>\n";
  const auto item = [&out](const char* term, const std::string& markup) {
    if (!markup.empty()) out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", term, markup);
  };
  const auto hash = [](const std::string& value) {
    return value.empty() ? "" : fmt::format("<br><span class=\"hash\">sha256 {}</span>", escape(value));
  };
  std::string model = fmt::format("<span class=\"v\">{}</span>", breakable(model_name(run)));
  if (!run.model.family.empty()) model += ", family " + escape(run.model.family);
  if (run.model.parameters > 0) model += fmt::format(", {} parameters", count_text(run.model.parameters));
  if (!run.model.dtype.empty()) model += ", stored as " + escape(run.model.dtype);
  if (!run.model.compute_dtype.empty()) model += ", computed in " + escape(run.model.compute_dtype);
  if (!run.model.revision.empty())
    model += fmt::format("<br><span class=\"hash\">revision {}</span>", escape(run.model.revision));
  item("Model", model + hash(run.model.sha256));
  item("Data", fmt::format("<span class=\"v\">{}</span>, {}{}", breakable(run.data.name),
                           plural(run.data.documents, "document"), hash(run.data.sha256)));
  std::string protocol = fmt::format("{}, context {}, {}", escape(run.protocol.name), count_text(run.protocol.context),
                                     plural(run.windows, "window"));
  if (run.protocol.stride > 0) protocol += fmt::format(", stride {}", count_text(run.protocol.stride));
  if (!run.protocol.aggregate.empty()) protocol += ", " + escape(run.protocol.aggregate);
  if (!run.protocol.bos.empty()) protocol += ", special tokens: " + escape(run.protocol.bos);
  if (run.protocol.skipped_documents > 0) {
    protocol += fmt::format("; {} too short to score", plural(run.protocol.skipped_documents, "document"));
  }
  item("Protocol", protocol);
  const MachineInfo& m = file.machine;
  std::vector<std::string> machine;
  if (!m.cpu.empty()) machine.push_back(escape(m.cpu));
  if (m.cores > 0) machine.push_back(plural(m.cores, "core"));
  if (m.threads > 0) machine.push_back(plural(m.threads, "thread"));
  if (m.memory_bytes > 0) machine.push_back(bytes_text(static_cast<double>(m.memory_bytes)));
  if (!m.backend.empty()) machine.push_back("backend " + escape(m.backend));
  if (!m.os.empty()) machine.push_back(escape(m.os));
  item("Machine", fmt::format("{}", fmt::join(machine, ", ")));
  std::string cost;
  if (run.seconds_total > 0) cost = seconds_text(run.seconds_total);
  if (run.peak_memory_bytes > 0) {
    cost += fmt::format("{}<span{}>{}</span> peak memory", cost.empty() ? "" : ", ",
                        attributes(source(run) / "peak_memory_bytes", run.peak_memory_bytes),
                        bytes_text(run.peak_memory_bytes));
  }
  item("Cost", cost);
  item("Program", file.version.empty() ? "" : "mxlm " + escape(file.version));
  if (!file.name.empty())
    item("Result", fmt::format("<span class=\"v\">{}</span>{}", escape(file.name), hash(file.sha256)));
  out += "</dl>\n";
  if (!run.command.empty()) {
    out += fmt::format("<pre tabindex=\"0\" aria-label=\"Command\"><code>{}</code></pre>\n", escape(run.command));
  }
  return out;
}

std::string render_html(const Record& record) {
  const std::string_view css = as_text(embedded::report_css()), script = as_text(embedded::report_js());
  const bool alone = record.runs.size() == 1;
  std::string title = alone ? fmt::format("{} in MX formats", model_name(record.runs.front()))
                            : fmt::format("{} in MX formats", plural(static_cast<int64_t>(record.runs.size()), "run"));
  Page out(record.limits);
  out += "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  out += fmt::format(
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src {}; script-src {}; "
      "base-uri 'none'; form-action 'none'\">\n",
      policy_hash(css), policy_hash(script));
  out += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  out += "<meta name=\"color-scheme\" content=\"light dark\">\n";
  out += fmt::format("<title>{}</title>\n<style>", escape(title));
  out += css;
  out += "</style>\n</head>\n<body>\n<main>\n<p class=\"eyebrow\">mxlm report</p>\n";
  if (record.runs.empty()) out += "<h1>No runs</h1>\n<p>The evaluation was interrupted before its first run.</p>\n";
  if (record.runs.size() > 1) {
    out += fmt::format("<h1>{}</h1>\n<section id=\"overview\">\n{}</section>\n", escape(title), overview(record));
  }
  for (const Run& run : record.runs) add_run_section(out, run, record.files[run.file], alone);
  out += "</main>\n<script>";
  out += script;
  out += "</script>\n</body>\n</html>\n";
  return out.take();
}

}  // namespace mxlm::report
