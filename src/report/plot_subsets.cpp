#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "report/plots.hpp"
#include "report/svg.hpp"

namespace mxlm::report {
namespace {

constexpr size_t kMostPanels = 3;
constexpr size_t kMostRows = 60;
constexpr size_t kMostTableRows = 2000, kMostTableVariants = 32;

struct Bar {
  std::string name;
  ShownFigure shown;
  [[nodiscard]] double value() const { return shown.value.value * shown.scale + shown.offset; }
  [[nodiscard]] double error() const {
    const double out = shown.error.value * shown.error_scale;
    return std::isfinite(out) ? out : 0;
  }
  [[nodiscard]] bool drawable() const { return std::abs(value()) + error() < 1e12; }
};

/// All variants if they are few, else the ends and the middle of the front.
std::vector<size_t> chosen(const Run& run) {
  std::vector<size_t> out;
  if (run.variants.size() <= kMostPanels + 1) {
    out.resize(run.variants.size() - 1);
    std::iota(out.begin(), out.end(), size_t{1});
    return out;
  }
  out = pareto_front(run, size_axis(run));
  if (out.size() > kMostPanels) out = {out.front(), out[out.size() / 2], out.back()};
  if (out.empty()) out = {1, 2, 3};
  return out;
}

/// Horizontal bars from zero, each with its error bar and its figure as text.
std::string draw(const std::string& title, const std::vector<Bar>& bars, double low, double high,
                 const std::string& id) {
  constexpr double kWidth = 420, kLabels = 132, kFigures = 88, kRow = 22;
  const double height = kRow * static_cast<double>(bars.size()) + 6;
  const Scale x(low, high, kLabels + 4, kWidth - kFigures - 4, false);
  std::string out = fmt::format(
      "<figure class=\"plot\"><figcaption>{}</figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-labelledby=\"{}\"><title id=\"{}\">Bars by subset; a table of the figures follows</title>",
      title, kWidth, height, id, id);
  out += fmt::format(R"(<path class="zero" d="M{} 0V{}"/>)", xy(x(0)), xy(height));
  for (size_t i = 0; i < bars.size(); ++i) {
    const Bar& bar = bars[i];
    const double y = kRow * static_cast<double>(i) + 3, middle = y + kRow / 2 - 1;
    out += fmt::format("<g{}>", attributes(bar.shown.value.source, bar.shown.value.value));
    out += svg_text(kLabels - 4, middle + 4, shorten(bar.name, 19), "end", "tick");
    const Measured text = measured(bar.value(), bar.shown.error.value * bar.shown.error_scale, bar.shown.sign);
    if (bar.drawable()) {
      const double from = std::min(x(0), x(bar.value())), to = std::max(x(0), x(bar.value()));
      out += fmt::format(R"(<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>)", xy(from), xy(y + 3),
                         xy(to - from), xy(kRow - 8));
      if (bar.error() > 0) {
        out +=
            fmt::format(R"(<path class="whisker" d="M{0} {2}H{1}M{0} {3}v6M{1} {3}v6"/>)",
                        xy(x(bar.value() - bar.error())), xy(x(bar.value() + bar.error())), xy(middle), xy(middle - 3));
      }
    }
    out +=
        svg_text(kWidth - kFigures + 4, middle + 4,
                 with_minus(text.error.empty() || text.error == "n/a" ? text.value
                                                                      : fmt::format("{} ± {}", text.value, text.error)),
                 "start", "tick");
    out += "</g>";
  }
  return out + "</svg></figure>\n";
}

}  // namespace

std::string subset_bars(const Run& run) {
  if (run.subsets.empty() || run.variants.empty()) return {};
  const size_t rows = std::min(run.subsets.size(), kMostRows);
  const auto bars_of = [&](size_t variant) {
    std::vector<Bar> bars;
    bars.reserve(rows);
    for (size_t s = 0; s < rows; ++s) {
      const Source from = source(run) / "subsets" / s / "variants" / variant;
      const VariantFigures& figures = run.subsets[s].variants[variant];
      bars.push_back(
          {run.subsets[s].name, variant == 0 ? ppl_figure(from, figures) : ppl_change_figure(from, figures)});
    }
    return bars;
  };
  const auto extend = [](const std::vector<Bar>& bars, double& low, double& high) {
    for (const Bar& bar : bars) {
      if (!bar.drawable()) continue;
      low = std::min(low, bar.value() - bar.error());
      high = std::max(high, bar.value() + bar.error());
    }
  };
  const std::string id = fmt::format("subset-{}-{}", run.file, run.index);
  std::string out = "<div class=\"plots\">\n";
  const std::vector<Bar> baseline = bars_of(0);
  double low = 0, high = 1e-9;
  extend(baseline, low, high);
  out += draw("Baseline " + quantity_name(run), baseline, 0, high, id + "-0");
  // All variants share a scale, so that panels can be compared.
  const std::vector<size_t> shown = chosen(run);
  low = -1e-9;
  high = 1e-9;
  for (const size_t v : shown) extend(bars_of(v), low, high);
  for (const size_t v : shown) {
    out += draw(fmt::format("Change of {}, %: {}", quantity_name(run), breakable(short_name(run.variants[v], 40))),
                bars_of(v), low, high, fmt::format("{}-{}", id, v));
  }
  out += "</div>\n";
  if (shown.size() + 1 < run.variants.size()) {
    out +=
        "<p class=\"note\">These are the ends and the middle of the line in the plots above; the table has all.</p>\n";
  }

  const size_t variants = std::min(run.variants.size(), kMostTableVariants + 1);
  const size_t table_rows = std::min(run.subsets.size(), kMostTableRows);
  std::vector<Column> columns{{.label = "Subset", .number = false},
                              {.label = "Windows"},
                              {.label = "Tokens"},
                              {.label = "Baseline " + short_quantity_name(run), .columns = 2}};
  for (size_t v = 1; v < variants; ++v) {
    columns.push_back({.label = fmt::format("{} {}, %", v, escape(short_name(run.variants[v], 15))),
                       .title = run.variants[v].name + ": change against the baseline",
                       .columns = 2});
  }
  std::string table = table_open("Figures by subset", columns);
  for (size_t s = 0; s < table_rows; ++s) {
    const SubsetResult& subset = run.subsets[s];
    const Source from = source(run) / "subsets" / s;
    table += fmt::format("<tr><th scope=\"row\">{}</th>", escape(subset.name));
    table += figure_cell({from / "windows", static_cast<double>(subset.windows)}, count_text(subset.windows));
    const int64_t tokens = subset.variants[0].tokens;
    table += figure_cell({from / "variants" / 0 / "tokens", static_cast<double>(tokens)}, count_text(tokens));
    table += measured_cells(ppl_figure(from / "variants" / 0, subset.variants[0]));
    for (size_t v = 1; v < variants; ++v) {
      table += measured_cells(ppl_change_figure(from / "variants" / v, subset.variants[v]));
    }
    table += "</tr>\n";
  }
  table += table_close();
  if (table_rows < run.subsets.size() || variants < run.variants.size()) {
    table += fmt::format("<p class=\"note\">The first {} subsets of {}, and {} variants of {}; the JSON has all.</p>",
                         count_text(static_cast<int64_t>(table_rows)),
                         count_text(static_cast<int64_t>(run.subsets.size())), variants - 1, run.variants.size() - 1);
  }
  return out + details(plural(static_cast<int64_t>(run.subsets.size()), "subset"), table);
}

}  // namespace mxlm::report
