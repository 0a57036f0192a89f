#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "base/quote.hpp"
#include "report/digits.hpp"
#include "report/error_words.hpp"
#include "report/report.hpp"
#include "report/text_layout.hpp"
#include "report/verdict.hpp"

namespace mxlm {
namespace {

constexpr size_t kNarrowestName = 10;
constexpr size_t kMostNameLines = 4;

/// The lines of a name: one line per clause (without the comma). A clause that is still too long breaks before '/' or
/// '@', after '=', or anywhere.
std::vector<std::string> break_name(std::string_view name, size_t columns) {
  if (text_width(name) <= columns) return {std::string(name)};
  std::vector<std::string> lines;
  while (!name.empty()) {
    const size_t comma = std::min(name.find(','), name.size());
    std::string_view clause = name.substr(0, comma);
    name.remove_prefix(std::min(comma + 1, name.size()));
    while (!clause.empty()) {
      const size_t indent = lines.empty() ? 0 : 1;
      std::string_view tail = clause;
      std::string_view piece = take_columns(tail, columns - indent);
      if (!tail.empty()) {
        const size_t mark = clause.substr(0, piece.size() + 1).find_last_of("/@");
        const size_t equals = piece.find_last_of('=');
        if (mark != std::string_view::npos && mark > 0) {
          piece = clause.substr(0, mark);
        } else if (equals != std::string_view::npos) {
          piece = clause.substr(0, equals + 1);
        }
      }
      lines.push_back(std::string(indent, ' ').append(piece));
      clause.remove_prefix(piece.size());
    }
  }
  return lines;
}

/// A column of figures: "value ± error" aligned at the sign where their sizes are alike, or plain text aligned right.
struct Column {
  struct Cell {
    std::string value, error;
    std::string below;  // on the row's second line
    [[nodiscard]] std::string text() const { return error.empty() ? value : value + " ± " + error; }
  };
  std::string title;
  std::vector<Cell> cells;

  [[nodiscard]] bool empty() const {
    return std::all_of(cells.begin(), cells.end(), [](const Cell& c) { return c.value.empty() && c.below.empty(); });
  }
  [[nodiscard]] size_t error_width() const {
    size_t out = 0;
    for (const Cell& c : cells) out = std::max(out, text_width(c.error));
    return out;
  }
  /// Pads errors to one width, so that the signs are below each other, unless that would make a wide column wider.
  void align() {
    const size_t wanted = error_width(), before = columns();
    constexpr size_t wide = 14;
    Column aligned = *this;
    for (Cell& c : aligned.cells) {
      if (!c.error.empty()) c.error = pad_right(c.error, wanted);
    }
    if (aligned.columns() <= std::max(before, wide)) *this = aligned;
  }
  [[nodiscard]] size_t columns() const {
    size_t out = text_width(title);
    for (const Cell& c : cells) out = std::max({out, text_width(c.text()), text_width(c.below)});
    return out;
  }
};

Column::Cell cell(const Measured& m) { return {.value = m.value, .error = m.error, .below = {}}; }

/// What the first column holds.
struct Quantity {
  std::string title;   // of the figure
  std::string change;  // of its difference from the baseline's
  std::string more;    // of a second figure beside it; "" = there is none
};

Quantity quantity_of(const std::vector<VariantResult>& variants) {
  const VariantFigures& f = variants[0].figures;
  if (f.rolling) return {.title = "word PPL", .change = "Δword", .more = "bits/byte"};
  if (f.self) return {.title = "self-PPL", .change = "Δself", .more = "entropy"};
  return {.title = "PPL", .change = "ΔPPL", .more = ""};
}

std::vector<Column> figure_columns(const std::vector<VariantResult>& variants) {
  constexpr double percent = 100, milli = 1000;
  const Quantity quantity = quantity_of(variants);
  Column ppl{quantity.title, {}}, more{quantity.more, {}}, ratio{quantity.change + " %", {}}, kld{"KL mnats", {}},
      top1{"top-1", {}}, weights{"", {}}, speed{"tok/s", {}};
  int64_t most_bytes = 0;
  for (const VariantResult& v : variants)
    most_bytes = std::max({most_bytes, v.weight_bytes_baseline, v.weight_bytes_variant});
  const bool giga = most_bytes >= 1'000'000'000;
  weights.title = giga ? "GB" : "MB";
  for (const VariantResult& v : variants) {
    const VariantFigures& f = v.figures;
    const bool rolling = f.rolling.has_value();
    const double value = rolling ? f.rolling->word_perplexity : f.ppl;
    ppl.cells.push_back(
        cell(measured(value, rolling ? f.rolling->word_perplexity_stderr_windows : f.ppl_stderr_windows)));
    more.cells.emplace_back();
    if (rolling) {
      more.cells.back() = cell(measured(f.rolling->bits_per_byte, f.rolling->bits_per_byte_stderr_windows));
    } else if (f.self) {
      more.cells.back() = cell(measured(f.self->entropy, f.self->entropy_stderr_windows));
    }
    more.cells.back().error.clear();  // its digits say it
    if (f.vs_baseline) {
      const VsBaseline& b = *f.vs_baseline;
      const double change = rolling ? value / variants[0].figures.rolling->word_perplexity : b.ppl_ratio;
      const double error = rolling ? f.rolling->ln_word_ratio_stderr_windows : b.ln_ppl_ratio_stderr_windows;
      ratio.cells.push_back(cell(measured((change - 1) * percent, change * error * percent, Sign::always)));
      kld.cells.push_back(cell(measured(b.kld_mean * milli, b.kld_stderr_windows * milli)));
      top1.cells.push_back(cell(measured(b.top1_agreement * percent, b.top1_error * percent)));
    } else {
      for (Column* column : {&ratio, &kld, &top1}) column->cells.emplace_back();
    }
    if (v.noise_measured) {
      const auto below = [](Column& column, double noise) {
        if (std::isfinite(noise)) column.cells.back().below = "noise " + significant_text(noise, 2);
      };
      // Of lmeval's figures the ones a word: tokens / words times as large, in logarithms, as those a token.
      const double tokens_a_word =
          rolling ? static_cast<double>(f.rolling->tokens) / static_cast<double>(f.rolling->words) : 1;
      if (f.vs_baseline) {
        const double change = rolling ? value / variants[0].figures.rolling->word_perplexity : f.vs_baseline->ppl_ratio;
        below(ratio, change * v.noise.ln_ppl_ratio_sd * tokens_a_word * percent);
        below(kld, v.noise.kld_sd * milli);
        below(top1, v.noise.top1_sd * percent);
      } else {
        below(ppl, value * v.noise.nll_sd * tokens_a_word);
      }
    }
    const auto bytes = static_cast<double>(v.weight_bytes_variant);
    weights.cells.emplace_back();
    if (v.weight_bytes_variant > 0) weights.cells.back().value = significant_text(bytes / (giga ? 1e9 : 1e6), 3);
    speed.cells.emplace_back();
    speed.cells.back().value = speed_text(v.tokens_per_second);
  }
  std::vector<Column> columns{ppl, more, ratio, kld, top1, weights, speed};
  std::erase_if(columns, [](const Column& c) { return c.empty(); });
  for (Column& column : columns) column.align();
  return columns;
}

void drop_errors(std::vector<Column>& columns, std::string_view title) {
  for (Column& column : columns) {
    if (column.title != title) continue;
    for (Column::Cell& c : column.cells) c.error.clear();
  }
}

/// Columns that keep every clause of a name on one line, unless that is a very long one.
size_t longest_clause(const std::vector<VariantResult>& variants) {
  constexpr size_t kLongClause = 24;
  size_t out = kNarrowestName;
  for (const VariantResult& v : variants) {
    const std::string name = printable_text(v.name);
    for (const std::string& part : break_name(name, kLongClause)) out = std::max(out, text_width(part));
  }
  return out;
}

/// Figures of all variants, a line each (more where a name is long), and a legend of names that stand for a spec.
void add_figures(std::string& out, const std::vector<VariantResult>& variants) {
  std::vector<Column> columns = figure_columns(variants);
  const auto taken = [&](size_t between) {
    size_t sum = 0;
    for (const Column& column : columns) sum += between + column.columns();
    return sum;
  };
  // Figures so long that they do not fit cost the space between columns, then errors of top-1, then the last columns.
  const size_t clause = longest_clause(variants);
  if (taken(1) + clause > kTerminalWidth) drop_errors(columns, "top-1");
  while (columns.size() > 1 && taken(1) + kNarrowestName > kTerminalWidth) columns.pop_back();
  const size_t gap = taken(2) + clause <= kTerminalWidth ? 2 : 1;
  const size_t room = std::max(kNarrowestName, kTerminalWidth - std::min(kTerminalWidth, taken(gap)));

  std::vector<std::vector<std::string>> names;
  std::string legend;
  size_t name_width = text_width("variant");
  for (size_t v = 0; v < variants.size(); ++v) {
    const std::string name = printable_text(variants[v].name), spec = printable_text(variants[v].spec);
    std::vector<std::string> lines = break_name(name, room);
    const bool label = lines.size() > kMostNameLines;
    if (label) lines = {fmt::format("[{}]", v)};
    std::string line = label ? fmt::format("[{}] {}", v, name) : name;
    if (!spec.empty() && spec != name) line += ": " + spec;
    if (label || line != name) legend += wrapped(line);
    for (const std::string& part : lines) name_width = std::max(name_width, text_width(part));
    names.push_back(std::move(lines));
  }

  const auto add_line = [&](std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  std::string title = pad_right("variant", name_width);
  std::vector<size_t> widths;
  for (const Column& column : columns) {
    widths.push_back(column.columns());
    title += std::string(gap, ' ') + pad_left(column.title, widths.back());
  }
  add_line(title);
  for (size_t v = 0; v < variants.size(); ++v) {
    const bool below =
        std::any_of(columns.begin(), columns.end(), [&](const Column& c) { return !c.cells[v].below.empty(); });
    for (size_t i = 0; i < std::max<size_t>(names[v].size(), below ? 2 : 1); ++i) {
      std::string line = pad_right(i < names[v].size() ? names[v][i] : "", name_width);
      for (size_t column = 0; column < columns.size(); ++column) {
        const Column::Cell& c = columns[column].cells[v];
        const std::string text = i == 0 ? c.text() : i == 1 ? c.below : std::string{};
        line += std::string(gap, ' ') + pad_left(text, widths[column]);
      }
      add_line(line);
    }
  }
  if (!legend.empty()) out += '\n' + legend;
}

std::string plural(int64_t n, std::string_view noun) {
  return fmt::format("{} {}{}", count_text(n), noun, n == 1 ? "" : "s");
}

/// "NVIDIA H100 (cuda:0,1): 12 + 11 shards, 0.51 J/token (...)."
std::string devices_text(const RunResult& run) {
  std::string out;
  for (size_t i = 0; i < run.devices.size();) {
    const std::string& name = run.devices[i].name;
    std::vector<int> indices;
    std::vector<int64_t> rounds;
    for (; i < run.devices.size() && run.devices[i].name == name; ++i) {
      indices.push_back(run.devices[i].index);
      rounds.push_back(run.devices[i].rounds);
    }
    out += fmt::format("{}{} (cuda:{}): {} shard{}", out.empty() ? "" : "; ", printable_text(name),
                       fmt::join(indices, ","), fmt::join(rounds, " + "), rounds == std::vector<int64_t>{1} ? "" : "s");
  }
  if (run.joules_per_token) {
    out += fmt::format(", {} J/token (positions through all variants)", significant_text(*run.joules_per_token, 2));
  }
  return out + '.';
}

void add_run(std::string& out, const RunResult& run, const MachineInfo& machine) {
  const bool empty = run.variants.empty() || run.variants[0].figures.tokens == 0;
  const std::string model = printable_text(run.model.name), data = printable_text(run.data.name);
  if (!run.complete) {
    out += wrapped(empty ? "INTERRUPTED before anything was scored."
                         : fmt::format("INTERRUPTED: these figures are of {} only.", plural(run.windows, "window")));
    out += '\n';
  }
  const int64_t tokens = empty ? 0 : run.variants[0].figures.tokens;
  if (!empty) {
    add_figures(out, run.variants);
    out += '\n';
  }
  std::string protocol =
      fmt::format("{} on {}: protocol {}, context {}{}, {}, {} scored", model, data, run.protocol.name,
                  run.protocol.context, run.protocol.stride > 0 ? fmt::format(", stride {}", run.protocol.stride) : "",
                  plural(run.windows, "window"), plural(tokens, "token"));
  if (run.protocol.skipped_documents > 0) {
    protocol += fmt::format("; {} too short to score", plural(run.protocol.skipped_documents, "document"));
  }
  out += wrapped(protocol + '.');
  std::string work = run.model.compute_dtype.empty() ? "" : run.model.compute_dtype + ", ";
  work += printable_text(machine.backend);
  if (machine.threads > 0) work += ", " + plural(machine.threads, "thread");
  if (run.seconds_total > 0) work += ", " + seconds_text(run.seconds_total);
  if (run.peak_memory_bytes > 0) work += ", peak memory " + bytes_text(static_cast<double>(run.peak_memory_bytes));
  out += wrapped(work + '.');
  if (!run.devices.empty()) out += wrapped(devices_text(run));
  if (empty) return;
  const VariantFigures& first = run.variants[0].figures;
  std::string key = error_words(run.clusters);
  if (run.variants.size() > 1) {
    key += fmt::format(" For {} it is that of the paired difference.", quantity_of(run.variants).change);
  }
  if (run.variants.size() > 1) {
    key += " KL(baseline‖variant) a token; 1 mnat = 0.001 nats. top-1: % of tokens with the same most likely token.";
  }
  if (first.rolling) key += " word PPL: exp(NLL / words of the raw pages).";
  if (first.self) {
    key +=
        " self-PPL: exp of the mean -ln p of each position's own most likely token, padding included: how sure the "
        "model is, not how right, and no perplexity. entropy: mean of a position, in nats.";
  }
  if (run.variants[0].weight_bytes_variant > 0) key += " MB: weights of the Linears.";
  out += wrapped(key);
  for (const std::string& words : {verdict_words(run), noise_words(run), power_words(run)}) {
    if (!words.empty()) out += wrapped(words);
  }
  for (const VariantResult& v : run.variants) {
    if (v.figures.nonfinite == 0) continue;
    out += wrapped(fmt::format("{}: {} of {} tokens have NaN or infinite logits, so it has no figures.",
                               printable_text(v.name), count_text(v.figures.nonfinite), count_text(v.figures.tokens)));
  }
}

/// All runs below one another: a line a model, and one a variant of it (more where its name is long).
void add_overview(std::string& out, const std::vector<RunResult>& runs) {
  std::vector<VariantResult> all;
  for (const RunResult& run : runs) {
    for (const VariantResult& v : run.variants) {
      if (v.figures.tokens == 0) continue;
      all.push_back(v);
      all.back().noise_measured = false;  // no line of its own here
      all.back().weight_bytes_baseline = all.back().weight_bytes_variant = 0;
    }
  }
  if (all.empty()) return;
  std::vector<Column> columns = figure_columns(all);
  const auto taken = [&] {
    size_t sum = 0;
    for (const Column& column : columns) sum += 2 + column.columns();
    return sum;
  };
  constexpr size_t indent = 2;
  if (taken() + indent + longest_clause(all) > kTerminalWidth) drop_errors(columns, "top-1");
  while (columns.size() > 1 && taken() + indent + kNarrowestName > kTerminalWidth) columns.pop_back();
  const size_t room = std::max(kNarrowestName, kTerminalWidth - indent - std::min(kTerminalWidth - indent, taken()));
  std::vector<std::vector<std::string>> names;
  size_t name_width = text_width("model, variant");
  for (const VariantResult& v : all) {
    std::string name = printable_text(v.name);
    names.push_back(break_name(name, room));
    if (names.back().size() > kMostNameLines) {
      std::string_view rest = name;
      names.back() = {std::string(take_columns(rest, room - 1)) + "…"};
    }
    for (const std::string& part : names.back()) name_width = std::max(name_width, indent + text_width(part));
  }
  const auto add_line = [&out](std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  std::string title = pad_right("model, variant", name_width);
  std::vector<size_t> widths;
  for (const Column& column : columns) {
    widths.push_back(column.columns());
    title += "  " + pad_left(column.title, widths.back());
  }
  add_line(title);
  const bool several_data =
      std::any_of(runs.begin(), runs.end(), [&](const RunResult& run) { return run.data.name != runs[0].data.name; });
  size_t row = 0;
  for (const RunResult& run : runs) {
    out += wrapped(printable_text(run.model.name) + (several_data ? " on " + printable_text(run.data.name) : ""));
    for (const VariantResult& v : run.variants) {
      if (v.figures.tokens == 0) continue;
      for (size_t i = 0; i < names[row].size(); ++i) {
        std::string line = pad_right(std::string(indent, ' ') + names[row][i], name_width);
        for (size_t column = 0; column < columns.size(); ++column) {
          line += "  " + pad_left(i == 0 ? columns[column].cells[row].text() : std::string{}, widths[column]);
        }
        add_line(line);
      }
      ++row;
    }
  }
}

}  // namespace

std::string render_table(const EvalResult& result) {
  std::string out;
  for (const RunResult& run : result.runs) {
    if (!out.empty()) out += '\n';
    add_run(out, run, result.machine);
  }
  if (result.runs.size() > 1) {
    out += '\n';
    add_overview(out, result.runs);
  }
  return out;
}

}  // namespace mxlm
