#include "report/sweep_table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

#include "base/quote.hpp"
#include "report/digits.hpp"
#include "report/error_words.hpp"
#include "report/text_layout.hpp"
#include "report/verdict.hpp"
#include "run/ranking.hpp"

namespace mxlm {
namespace {

// The columns that a cut name keeps: before figures are omitted, and at last.
constexpr size_t kReadable = 18, kNarrowest = 8;
constexpr size_t kMarks = 5;
constexpr double kMilli = 1000, kPercent = 100;

/// A format with the short names of the format table, where it has them: "mxfp4/mxfp8".
std::string short_format(std::string text) {
  for (const auto& element : mx::kElements) {
    const auto alias = std::find_if(element.aliases.begin(), element.aliases.end(),
                                    [&](std::string_view a) { return !a.empty() && element.name.starts_with(a); });
    if (alias == element.aliases.end()) continue;
    for (size_t at = text.find(element.name); at != std::string::npos; at = text.find(element.name)) {
      text.replace(at, element.name.size(), *alias);
    }
  }
  return text;
}

struct Coordinate {
  const char* title;
  const char* words;  // in "All: block 32, ..."
  std::string (*of)(const SweepPoint&);
};
constexpr Coordinate kCoordinates[] = {
    {"unit", "unit", [](const SweepPoint& p) { return p.unit; }},
    {"format", "format", [](const SweepPoint& p) { return short_format(p.format); }},
    {"block", "block", [](const SweepPoint& p) { return fmt::format("{}", p.block); }},
    {"scale", "scale bits", [](const SweepPoint& p) { return fmt::format("{}", p.scale_bits); }},
    {"rule", "rule", [](const SweepPoint& p) { return p.rule; }},
    {"round", "rounding", [](const SweepPoint& p) { return p.round; }},
    {"roles", "roles", [](const SweepPoint& p) { return p.roles; }},
};

struct Column {
  std::string title;
  std::vector<std::string> cells;
  bool left = false;
  [[nodiscard]] size_t width() const {
    size_t out = text_width(title);
    for (const std::string& cell : cells) out = std::max(out, text_width(cell));
    return out;
  }
};

std::string with_error(const Measured& m) { return m.error.empty() ? m.value : m.value + " ± " + m.error; }

using Rows = std::vector<const VariantResult*>;

Rows sorted_rows(const RunResult& run) {
  Rows rows;
  for (const size_t v : ranking(run.variants)) {
    if (run.variants[v].sweep && run.variants[v].figures.vs_baseline) rows.push_back(&run.variants[v]);
  }
  return rows;
}

/// How the KL divergences of two variants compare: the chance of their paired difference; nullopt if the difference was
/// not computed or has no error.
std::optional<double> chance_between(const RunResult& run, size_t x, size_t y) {
  const auto [a, b] = std::minmax(x, y);
  // Pairs are in order.
  const auto pair = std::lower_bound(
      run.pairs.begin(), run.pairs.end(), std::pair(a, b),
      [](const PairFigures& p, const std::pair<size_t, size_t>& wanted) { return std::pair(p.a, p.b) < wanted; });
  if (pair == run.pairs.end() || pair->a != a || pair->b != b) return std::nullopt;
  const double chance = chance_of(
      {.value = pair->kld_difference, .error = pair->kld_difference_stderr_windows, .clusters = run.clusters.number});
  return std::isfinite(chance) ? std::optional(chance) : std::nullopt;
}

bool alike(const RunResult& run, size_t x, size_t y) {
  const auto chance = chance_between(run, x, y);
  return chance && *chance >= kBorderlineChance;
}

/// "*" if Pareto-optimal, "(*)" if no other variant with at most its bits beats it by more than their error; then "="
/// if KL does not differ from the row above, "1" if it does not differ from the first row.
std::vector<std::string> marks_of(const RunResult& run, const Rows& rows) {
  const std::vector<std::optional<size_t>> others = rivals(run.variants);
  std::vector<std::string> out;
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto index = [&](size_t row) { return static_cast<size_t>(rows[row] - run.variants.data()); };
    std::string marks = rows[r]->sweep->pareto ? "*" : "";
    const auto other = others[index(r)];
    if (marks.empty() && other && rows[r]->sweep->bits_saved > 0 && alike(run, *other, index(r))) marks = "(*)";
    marks = pad_right(marks, 3);
    marks += r > 0 && alike(run, index(r - 1), index(r)) ? "=" : " ";
    marks += r > 0 && alike(run, index(0), index(r)) ? "1" : " ";
    out.push_back(std::move(marks));
  }
  return out;
}

/// Removes the common beginning of all units, up to a dot, and returns it.
std::string take_common_prefix(std::vector<std::string>& units) {
  if (units.size() < 2) return {};
  std::string prefix = units.front();
  for (const std::string& unit : units) {
    size_t same = 0;
    while (same < std::min(prefix.size(), unit.size()) && prefix[same] == unit[same]) ++same;
    prefix.resize(same);
  }
  prefix.resize(prefix.find_last_of('.') == std::string::npos ? 0 : prefix.find_last_of('.') + 1);
  for (std::string& unit : units) unit.erase(0, prefix.size());
  return prefix;
}

/// Columns of the coordinates that vary; `fixed` receives a sentence about the coordinates that do not.
std::vector<Column> coordinate_columns(const Rows& rows, std::string& fixed, std::string& prefix) {
  std::vector<Column> out;
  std::vector<std::string> same;
  for (const Coordinate& coordinate : kCoordinates) {
    Column column{.title = coordinate.title, .cells = {}, .left = true};
    for (const VariantResult* row : rows) column.cells.push_back(printable_text(coordinate.of(*row->sweep)));
    const bool varies = std::any_of(column.cells.begin(), column.cells.end(),
                                    [&](const std::string& c) { return c != column.cells.front(); });
    if (varies) {
      if (coordinate.of == kCoordinates[0].of) prefix = take_common_prefix(column.cells);
      out.push_back(std::move(column));
    } else if (!column.cells.front().empty()) {
      same.push_back(fmt::format("{} {}", coordinate.words, column.cells.front()));
    }
  }
  if (!same.empty()) fixed = fmt::format("{}: {}.", rows.size() > 1 ? "All" : "It", fmt::join(same, ", "));
  return out;
}

std::vector<Column> figure_columns(const Rows& rows) {
  Column bits{"bits", {}, false}, kld{"KL mnats", {}, false}, per_bit{"KL/bit", {}, false}, ppl{"ΔPPL %", {}, false},
      top1{"top-1", {}, false};
  for (const VariantResult* row : rows) {
    const VsBaseline& b = *row->figures.vs_baseline;
    const SweepPoint& point = *row->sweep;
    const double kld_error = b.kld_stderr_windows * kMilli;
    const double ppl_error = b.ppl_ratio * b.ln_ppl_ratio_stderr_windows * kPercent;
    bits.cells.push_back(fmt::format("{:.2f}", row->weight_bits_variant));
    kld.cells.push_back(with_error(measured(b.kld_mean * kMilli, kld_error)));
    per_bit.cells.push_back(
        point.bits_saved > 0 ? measured(point.kld_per_bit * kMilli, kld_error / point.bits_saved).value : "-");
    ppl.cells.push_back(with_error(measured((b.ppl_ratio - 1) * kPercent, ppl_error, Sign::always)));
    top1.cells.push_back(measured(b.top1_agreement * kPercent, b.top1_error * kPercent).value);
  }
  return {bits, kld, per_bit, ppl, top1};
}

size_t total_width(const std::vector<Column>& columns) {
  size_t sum = kMarks;
  for (const Column& column : columns) sum += 2 + column.width();
  return sum;
}

void add_rows(std::string& out, const RunResult& run, const Rows& rows, std::vector<Column> columns) {
  // First long names are cut, then the last figures go, then names are cut short.
  size_t least = kReadable;
  const size_t names =
      static_cast<size_t>(std::count_if(columns.begin(), columns.end(), [](const Column& c) { return c.left; }));
  while (total_width(columns) > kTerminalWidth) {
    const auto end = columns.begin() + static_cast<std::ptrdiff_t>(names);
    const auto widest =
        std::max_element(columns.begin(), end, [](const Column& a, const Column& b) { return a.width() < b.width(); });
    const size_t excess = total_width(columns) - kTerminalWidth;
    if (widest != end && widest->width() > least) {
      const size_t room = std::max(least, widest->width() - std::min(excess, widest->width()));
      for (std::string& cell : widest->cells) cell = elide_left(cell, room);
    } else if (columns.size() > names + 3) {
      columns.pop_back();
    } else if (least > kNarrowest) {
      least = kNarrowest;
    } else {
      break;
    }
  }
  const auto add_line = [&out](std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  std::string title(kMarks, ' ');
  std::vector<size_t> widths;
  for (const Column& c : columns) {
    widths.push_back(c.width());
    title += "  " + (c.left ? pad_right(c.title, widths.back()) : pad_left(c.title, widths.back()));
  }
  add_line(title);
  const std::vector<std::string> marks = marks_of(run, rows);
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line = marks[r];
    for (size_t column = 0; column < columns.size(); ++column) {
      const Column& c = columns[column];
      line += "  " + (c.left ? pad_right(c.cells[r], widths[column]) : pad_left(c.cells[r], widths[column]));
    }
    add_line(line);
  }
}

void add_run(std::string& out, const RunResult& run, const MachineInfo& machine) {
  const Rows rows = sorted_rows(run);
  const int64_t tokens = run.variants.empty() ? 0 : run.variants.front().figures.tokens;
  if (!run.complete) {
    out += wrapped(tokens == 0
                       ? "INTERRUPTED before anything was scored."
                       : fmt::format("INTERRUPTED: these figures are of {} windows only.", count_text(run.windows)));
    out += '\n';
  }
  if (tokens > 0 && !rows.empty()) {
    std::string fixed, prefix;
    std::vector<Column> columns = coordinate_columns(rows, fixed, prefix);
    if (columns.empty()) {  // one variant, or equal variants
      columns.push_back({.title = "format",
                         .cells = std::vector<std::string>(rows.size(), rows.front()->sweep->format),
                         .left = true});
    }
    for (Column& column : figure_columns(rows)) columns.push_back(std::move(column));
    add_rows(out, run, rows, std::move(columns));
    out += '\n';
    if (!fixed.empty()) out += wrapped(fixed);
    if (!prefix.empty()) out += wrapped(fmt::format("Names are shown after '{}'.", printable_text(prefix)));
    const VariantResult& baseline = run.variants.front();
    out += wrapped(fmt::format(
        "Baseline: {} {}, {:.2f} bits a weight.", baseline.figures.self ? "self-PPL (no perplexity)" : "PPL",
        with_error(measured(baseline.figures.ppl, baseline.figures.ppl_stderr_windows)), baseline.weight_bits_variant));
  }
  std::string work = fmt::format(
      "{} on {}: protocol {}, context {}, {} windows, {} tokens scored; {} variants for the "
      "work of {} forward passes",
      printable_text(run.model.name), printable_text(run.data.name), run.protocol.name, run.protocol.context,
      count_text(run.windows), count_text(tokens), rows.size(), significant_text(run.forwards, 3));
  if (!run.model.compute_dtype.empty()) work += ", " + run.model.compute_dtype;
  work += ", " + printable_text(machine.backend);
  if (run.seconds_total > 0) work += fmt::format(", {:.1f} s", run.seconds_total);
  if (run.peak_memory_bytes > 0) {
    work += fmt::format(", peak memory {} MB", significant_text(static_cast<double>(run.peak_memory_bytes) / 1e6, 3));
  }
  out += wrapped(work + '.');
  if (rows.empty() || tokens == 0) return;
  std::string key =
      "bits: mean bits a weight of all Linears, scales included. KL(baseline‖variant) in mnats a token; KL/bit: for "
      "each of these bits saved, the order of the table. *: Pareto-optimal, nothing has both less KL and fewer bits; "
      "(*): nothing of at most its bits has less KL by more than the error. = and 1: KL differs from that of the row "
      "above, and of the first row, by no more than two standard errors (paired, Student's t, each mark by itself).";
  out += wrapped(key);
  for (const std::string& words : {error_words(run.clusters), verdict_words(run), noise_words(run), power_words(run)}) {
    if (!words.empty()) out += wrapped(words);
  }
  for (const VariantResult* v : rows) {
    if (v->figures.nonfinite == 0) continue;
    out +=
        wrapped(fmt::format("{}: {} of {} tokens have NaN or infinite logits, so it has no figures.",
                            printable_text(v->name), count_text(v->figures.nonfinite), count_text(v->figures.tokens)));
  }
}

std::string number(double x) { return std::isfinite(x) ? fmt::format("{}", x) : std::string{}; }

}  // namespace

std::string render_sweep_table(const EvalResult& result) {
  std::string out;
  for (const RunResult& run : result.runs) {
    if (!out.empty()) out += '\n';
    add_run(out, run, result.machine);
  }
  return out;
}

std::string render_sweep_csv(const EvalResult& result, Formulas formulas) {
  std::string out =
      "model,data,variant,unit,format,block,scale_bits,rule,round,roles,weight_bits,bits_saved,kld_mean,kld_stderr,"
      "kld_per_bit,pareto,ln_ppl_ratio,ln_ppl_ratio_stderr,ppl,ppl_stderr,top1_agreement,top1_stderr,tokens,nonfinite,"
      "tokens_per_second,kld_stderr_windows,ln_ppl_ratio_stderr_windows,ppl_stderr_windows,top1_stderr_windows\n";
  const auto text = [formulas](std::string_view field) { return csv_field(field, formulas); };
  for (const RunResult& run : result.runs) {
    for (const VariantResult& v : run.variants) {
      if (!v.sweep || !v.figures.vs_baseline) continue;
      const SweepPoint& p = *v.sweep;
      const VsBaseline& b = *v.figures.vs_baseline;
      const bool self = v.figures.self.has_value();  // which does not measure a perplexity
      const auto perplexity = [self](double x) { return self ? std::string{} : number(x); };
      const std::vector<std::string> fields = {text(run.model.name),
                                               text(run.data.name),
                                               text(v.name),
                                               text(p.unit),
                                               text(p.format),
                                               fmt::format("{}", p.block),
                                               fmt::format("{}", p.scale_bits),
                                               text(p.rule),
                                               text(p.round),
                                               text(p.roles),
                                               number(v.weight_bits_variant),
                                               number(p.bits_saved),
                                               number(b.kld_mean),
                                               number(b.kld_stderr),
                                               number(p.kld_per_bit),
                                               p.pareto ? "1" : "0",
                                               perplexity(b.ln_ppl_ratio),
                                               perplexity(b.ln_ppl_ratio_stderr),
                                               perplexity(v.figures.ppl),
                                               perplexity(v.figures.ppl_stderr),
                                               number(b.top1_agreement),
                                               number(b.top1_stderr),
                                               fmt::format("{}", v.figures.tokens),
                                               fmt::format("{}", v.figures.nonfinite),
                                               number(v.tokens_per_second),
                                               number(b.kld_stderr_windows),
                                               perplexity(b.ln_ppl_ratio_stderr_windows),
                                               perplexity(v.figures.ppl_stderr_windows),
                                               number(b.top1_stderr_windows)};
      out += fmt::format("{}\n", fmt::join(fields, ","));
    }
  }
  return out;
}

}  // namespace mxlm
